#!/bin/sh
# A wrapper around rustc that gives the compiler's coverage to the code that reads files, ours and the libraries', and to nothing else:
# the numerics behind it would double the time of the build and slow every execution down.
rustc=$1
shift
crate='' target=0 before=''
for argument in "$@"; do
    [ "$before" != --crate-name ] || crate=$argument
    # Build scripts and macros run in the compiler, which has no place for the counters; they are built without a target.
    [ "$argument" != --target ] || target=1
    before=$argument
done
case $target:$crate in
    1:selftrace | 1:selftrace_fuzz | 1:safetensors | 1:serde_json | 1:toml* | 1:winnow | 1:minijinja* | 1:tokenizers | 1:parquet | \
        1:index | 1:config | 1:adapter_config | 1:tokenizer | 1:template | 1:manifest | 1:prompts | 1:readouts | 1:store)
        exec "$rustc" "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
            -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Clto=no
        ;;
esac
exec "$rustc" "$@"
