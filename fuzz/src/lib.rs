//! What several targets need: a store of images, and the folder around it, in which nothing else may ever appear.

use std::fs;
use std::path::{Path, PathBuf};

use skep_images::{Image, Store, remove_all};

/// What stands beside the store and must stay as it is.
const WITNESS: &str = "nobody writes here";

/// A store in memory, for one target's whole run. It stays when the run ends; so who runs targets may say where it is to be
/// (`SKEP_FUZZ_YARDS`).
pub struct Yard {
    /// The store.
    pub store: Store,
    folder: tempfile::TempDir,
}

impl Default for Yard {
    fn default() -> Yard {
        let around = std::env::var_os("SKEP_FUZZ_YARDS").unwrap_or_else(|| "/dev/shm".into());
        let folder = tempfile::tempdir_in(around).expect("a folder in memory");
        for path in ["witness", "files"] {
            fs::create_dir(folder.path().join(path)).expect("a new folder");
        }
        fs::write(folder.path().join("witness/file"), WITNESS).expect("a new file");
        Yard { store: Store::open(&folder.path().join("images")).expect("a new store"), folder }
    }
}

impl Yard {
    /// A folder beside the store that a target may fill; [`Yard::check`] empties it.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// Removes all images. Nothing of them stays, and nothing ever was anywhere else.
    pub fn check(&self) {
        for Image { id, .. } in self.store.list().expect("a store that can be read") {
            self.store.remove(&id.to_string(), true, &|_| None).expect("an image to remove");
        }
        for name in ["tmp", "layers", "recipes", "configs"] {
            assert_eq!(
                names(&self.folder.path().join("images").join(name)),
                [""; 0],
                "{name} is empty again"
            );
        }
        remove_all(&self.files()).expect("a folder to empty");
        fs::create_dir(self.files()).expect("a new folder");
        assert_eq!(names(self.folder.path()), ["files", "images", "witness"], "nothing leads out");
        let witness = self.folder.path().join("witness");
        assert_eq!(names(&witness), ["file"], "nothing leads out");
        assert_eq!(fs::read_to_string(witness.join("file")).expect("a file"), WITNESS, "nothing leads out");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
