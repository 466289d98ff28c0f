#!/bin/sh
# A wrapper around rustc that gives the compiler's coverage to the code that reads files, ours and the libraries', and to nothing else:
# the numerics behind it would double the time of the build and slow every execution down. Nothing that is named here may be needed by a
# build script or a macro: those run without libFuzzer, which has the other end of the counters.
rustc=$1
shift
crate='' before=''
for argument in "$@"; do
    [ "$before" != --crate-name ] || crate=$argument
    before=$argument
done
case $crate in
    selftrace | selftrace_fuzz | serde_json | safetensors | toml | toml_parser | minijinja | minijinja_contrib | tokenizers | parquet | \
        index | config | adapter_config | tokenizer | template | manifest | prompts | readouts | store)
        exec "$rustc" "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
            -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Clto=no
        ;;
esac
exec "$rustc" "$@"
