//! A root file system as an archive.

use tar::EntryType;

/// A root file system with Debian's busybox, to be imported as an image.
pub struct Rootfs {
    archive: tar::Builder<Vec<u8>>,
}

impl Rootfs {
    /// One with busybox in `/bin` under these names, and with `/etc` and `/tmp`.
    ///
    /// # Panics
    /// Without `/bin/busybox`.
    pub fn busybox(names: &[&str]) -> Rootfs {
        let program = std::fs::read("/bin/busybox").expect("busybox-static is installed");
        let rootfs = Rootfs { archive: tar::Builder::new(Vec::new()) };
        let rootfs = rootfs.folder("bin").folder("etc").folder("tmp").file("bin/busybox", 0o755, &program);
        names.iter().fold(rootfs, |rootfs, name| rootfs.link(&format!("bin/{name}"), "busybox"))
    }

    /// Adds a folder.
    pub fn folder(self, path: &str) -> Rootfs {
        self.entry(path, EntryType::Directory, 0o755, b"", None)
    }

    /// Adds a file.
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Rootfs {
        self.entry(path, EntryType::Regular, mode, content, None)
    }

    /// Adds a symbolic link.
    pub fn link(self, path: &str, target: &str) -> Rootfs {
        self.entry(path, EntryType::Symlink, 0o777, b"", Some(target))
    }

    /// The archive.
    pub fn finish(self) -> Vec<u8> {
        self.archive.into_inner().unwrap()
    }

    fn entry(mut self, path: &str, kind: EntryType, mode: u32, content: &[u8], link: Option<&str>) -> Rootfs {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        self.archive.append_data(&mut header, path, content).unwrap();
        self
    }
}
