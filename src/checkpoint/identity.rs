//! What a checkpoint folder is, cheaply: the kernel's word for "these files have not been touched".
//!
//! A content hash proves what a readout was made from, but hashing terabytes to find out that nothing changed is a bad
//! start of every resume. So the hash is computed once, while the weights are read, and remembered together with inode,
//! size and times of the files; when any of these differ the hash is computed again.

use anyhow::Result;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Digest of names, inodes, sizes, modification and change times of the files that determine a checkpoint.
///
/// # Errors
/// The folder cannot be listed.
pub fn stat_key(folder: &Path) -> Result<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if ["config.json", "adapter_config.json"].contains(&name.as_str())
            || name.ends_with(".safetensors")
            || name.ends_with(".index.json")
        {
            // Follows links, as opening the file does: a hub snapshot is a folder of links into a blob store.
            let meta = std::fs::metadata(entry.path())?;
            let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
            // Not the number of the device, which differs between the machines that mount a file system.
            lines.push(format!("{name} {} {} {times:?}", meta.ino(), meta.len()));
        }
    }
    lines.sort();
    Ok(blake3::hash(lines.join("\n").as_bytes()).to_hex().to_string())
}
