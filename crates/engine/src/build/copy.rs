//! `COPY`, `ADD` and `WORKDIR`: steps that write files without running anything.

use std::io::Read as _;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags};
use skep_dockerfile::{Copy, check_chmod};
use skep_images::{Above, Digest, Draft, ImageId};

use super::download::Download;
use super::sources::{self, Source};
use super::tree::{self, Copying};
use super::{Builder, Failure, Stage};
use crate::error::chain;
use crate::{Error, Result};

/// Largest /etc/passwd or /etc/group that is read, in bytes.
const ACCOUNTS_LIMIT: u64 = 4 << 20;

/// Where sources are.
enum Tree<'a> {
    Context(&'a super::context::Context),
    Image(Draft),
}

impl Tree<'_> {
    fn root(&self) -> BorrowedFd<'_> {
        match self {
            Tree::Context(context) => context.root(),
            Tree::Image(draft) => draft.root(),
        }
    }
}

/// What is to be copied.
enum Found {
    /// In the tree that the instruction names.
    There(Source),
    /// From an address.
    Fetched(Download),
}

impl Found {
    fn source(&self) -> &Source {
        match self {
            Found::There(source) => source,
            Found::Fetched(download) => &download.source,
        }
    }
}

impl Builder {
    /// `COPY` and `ADD`; `name` says which.
    pub(super) fn copy(&self, stage: &mut Stage, name: &'static str, copy: &Copy) -> Result<(), Failure> {
        let tree = if copy.from.is_empty() {
            Tree::Context(&self.context)
        } else {
            Tree::Image(self.draft(self.copy_source(&copy.from)?)?)
        };
        let mode = match copy.chmod.as_str() {
            "" => None,
            text => Some(check_chmod(text).ok_or_else(|| {
                Error::invalid(format!(
                    "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
                ))
            })?),
        };
        let found = self.find_all(&tree, name, copy)?;
        let several = found.len() + copy.heredocs.len() > 1;
        if several && !copy.destination.ends_with('/') {
            return Err(Error::invalid(format!(
                "When using {name} with more than one source file, the destination must be a directory and end with a /"
            ))
            .into());
        }
        let mut hashes: Vec<String> = found.iter().map(|found| found.source().hash.clone()).collect();
        hashes.extend(copy.heredocs.iter().map(|heredoc| {
            let text = format!("{}\n{}", heredoc.name, heredoc.content);
            format!("file:{}", Digest::of(text.as_bytes()).hex())
        }));
        let flags = [("chown", &copy.chown), ("chmod", &copy.chmod)];
        let flags: String = flags
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(flag, value)| format!("--{flag}={value}"))
            .collect::<Vec<_>>()
            .join(" ");
        let comment = format!("{name} {flags}{} in {} ", sources::hash_all(&hashes), copy.destination);
        self.write_step(stage, &comment, |draft, stage| {
            let chown = match copy.chown.as_str() {
                "" => None,
                text => Some(owner(draft, text)?),
            };
            let keeps = !copy.from.is_empty() && chown.is_none();
            let owner = chown.unwrap_or_default();
            let copying = Copying { owner: (!keeps).then_some(owner), mode };
            let target = Target {
                root: draft.root(),
                path: destination(&stage.config.working_dir, &copy.destination),
                owner,
                copying,
            };
            for found in &found {
                let source = found.source();
                let put = match found {
                    // As Docker: what was fetched stays as it is.
                    Found::Fetched(download) => target.put(download.root(), source, Archives::AreFiles),
                    Found::There(_) if name == "ADD" => {
                        target.put(tree.root(), source, Archives::AreUnpacked)
                    }
                    Found::There(_) => target.put(tree.root(), source, Archives::AreFiles),
                };
                put.map_err(|error| {
                    Error::invalid(format!("failed to copy files: {}: {}", source.path, chain(&error)))
                })?;
            }
            let failed =
                |error: std::io::Error| Error::invalid(format!("failed to copy files: {}", chain(&error)));
            for heredoc in &copy.heredocs {
                let (folder, last) = target.place(&heredoc.name).map_err(failed)?;
                let copying = Copying { owner: Some(owner), mode };
                tree::write_file(&folder, &last, heredoc.content.as_bytes(), copying).map_err(failed)?;
            }
            Ok(())
        })
    }

    /// `WORKDIR`: the folder is there from now on.
    pub(super) fn workdir(&self, stage: &mut Stage, comment: &str) -> Result<(), Failure> {
        self.write_step(stage, comment, |draft, stage| {
            let path = tree::settle(draft.root(), &stage.config.working_dir);
            let made = path.and_then(|path| tree::make_folder(draft.root(), &path, (0, 0)));
            made.map(drop)
                .map_err(|error| Error::invalid(format!("mkdir {}: {error}", stage.config.working_dir)))
        })
    }

    /// A step whose key is its comment: found in the cache, or done in a draft.
    fn write_step(
        &self,
        stage: &mut Stage,
        comment: &str,
        write: impl FnOnce(&Draft, &Stage) -> Result<()>,
    ) -> Result<(), Failure> {
        let command = stage.nop(&format!("#(nop) {comment}"));
        if self.is_cached(stage, &command)? {
            return Ok(());
        }
        let draft = self.draft(stage.image)?;
        write(&draft, stage)?;
        self.commit_step(stage, &command, Above::Draft(draft))
    }

    /// What the words of an instruction stand for, fetched where they are addresses.
    fn find_all(&self, tree: &Tree<'_>, name: &'static str, copy: &Copy) -> Result<Vec<Found>, Failure> {
        let failed = |problem: String| Error::invalid(format!("{name} failed: {problem}"));
        let is_address = |word: &str| word.starts_with("http://") || word.starts_with("https://");
        let is_git = |word: &str| word.starts_with("git@") || word.starts_with("git://");
        let mut found = Vec::new();
        for word in &copy.sources {
            if is_address(word) && name == "COPY" {
                return Err(failed("source can't be a URL for COPY".to_owned()).into());
            }
            if name == "ADD" && is_git(word) {
                let problem =
                    format!("ADD failed: fetching {word} by git is not built yet: use RUN, or the context");
                return Err(Error::unsupported(problem).into());
            }
            if is_address(word) {
                found.push(Found::Fetched(self.download(word, &copy.destination)?));
                continue;
            }
            let in_context = matches!(tree, Tree::Context(_));
            let there = sources::find(tree.root(), word, in_context).map_err(failed)?;
            found.extend(there.into_iter().map(Found::There));
        }
        if found.is_empty() && copy.heredocs.is_empty() {
            return Err(failed("no source files were specified".to_owned()).into());
        }
        Ok(found)
    }

    fn draft(&self, image: Option<ImageId>) -> Result<Draft> {
        self.engine
            .shared
            .images
            .draft(image)
            .map_err(|error| Error::failed("reading the files of an image", &error))
    }
}

/// Where a destination is, seen from the root; a slash at its end stays. As moby: `..` is taken off before links are followed.
fn destination(working_dir: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("/{working_dir}/{path}") };
    let slash = if whole.ends_with('/') { "/" } else { "" };
    format!("/{}{slash}", sources::clean(&whole))
}

/// Where copies go.
struct Target<'a> {
    root: BorrowedFd<'a>,
    path: String,
    /// Whose the folders are that have to be made.
    owner: (u32, u32),
    copying: Copying,
}

/// What becomes of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Archives {
    AreUnpacked,
    AreFiles,
}

impl Target<'_> {
    fn put(&self, from: BorrowedFd<'_>, source: &Source, archives: Archives) -> std::io::Result<()> {
        let path = tree::settle(from, &source.path)?;
        let top = tree::open(from, &path, OFlags::PATH)?;
        let stat = rustix::fs::fstat(&top)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let folder = tree::open(from, &path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let settled = tree::settle(self.root, self.path.trim_end_matches('/'))?;
            let (into, _) = tree::make_folder(self.root, &settled, self.owner)?;
            return tree::copy_folder(&folder, &into, self.copying);
        }
        if archives == Archives::AreUnpacked && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        {
            let mut file = std::fs::File::open(tree::by_descriptor(&top))?;
            if skep_images::is_archive(&mut file) {
                let settled = tree::settle(self.root, self.path.trim_end_matches('/'))?;
                let (into, _) = tree::make_folder(self.root, &settled, (0, 0))?;
                let mut file = std::fs::File::open(tree::by_descriptor(&top))?;
                // The folder itself, not the link that stands for its descriptor.
                let folder = tree::by_descriptor(&into).join(".");
                return skep_images::unpack_files(&mut file, &folder).map_err(std::io::Error::other);
            }
        }
        let (parent, name) = tree::split(&path);
        let folder = tree::open(from, parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
        // A copy is called as its source, even where that is a link to something else.
        let (into, last) = self.place(tree::split(&source.path).1)?;
        tree::copy_file(&folder, &std::ffi::CString::new(name)?, &into, &last, self.copying)
    }

    /// The folder that a file goes to, and its name there: `name` in a destination that is a folder.
    fn place(&self, name: &str) -> std::io::Result<(std::os::fd::OwnedFd, String)> {
        let settled = tree::settle(self.root, self.path.trim_end_matches('/'))?;
        let is_folder = self.path.ends_with('/')
            || tree::open(self.root, &settled, OFlags::PATH | OFlags::DIRECTORY).is_ok();
        let (parent, last) = if is_folder { (settled.as_str(), name) } else { tree::split(&settled) };
        let (folder, _) = tree::make_folder(self.root, parent, self.owner)?;
        Ok((folder, last.to_owned()))
    }
}

/// The ids of `user`, `user:group`, names or numbers, by the image's own files.
fn owner(draft: &Draft, text: &str) -> Result<(u32, u32)> {
    let read = |path: &str| -> String {
        let mut content = String::new();
        if let Ok(file) = tree::open(draft.root(), path, OFlags::RDONLY | OFlags::NONBLOCK) {
            // One that is not text names nobody.
            let _ = std::fs::File::from(file).take(ACCOUNTS_LIMIT).read_to_string(&mut content);
        }
        content
    };
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let refuse = |what: &str, name: &str, file: &str| {
        Error::invalid(format!(
            "unable to convert uid/gid chown string to host mapping: can't find {what} for {name}: no such {what}: {name} in {file}"
        ))
    };
    let lookup = |name: &str, file: &str, what: &str| -> Result<u32> {
        let by_name = read(file).lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1).and_then(|id| id.parse().ok())).flatten()
        });
        by_name.or_else(|| name.parse().ok()).ok_or_else(|| refuse(what, name, file))
    };
    let uid = lookup(user, "/etc/passwd", "uid")?;
    // As moby: a user alone is its group as well.
    let gid = match group {
        Some(group) => lookup(group, "/etc/group", "gid")?,
        None => lookup(user, "/etc/group", "gid")?,
    };
    Ok((uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_seen_from_the_working_directory() {
        assert_eq!(destination("/w", "a/"), "/w/a/");
        assert_eq!(destination("", "."), "/");
        assert_eq!(destination("/w", "/a/../../b"), "/b");
    }
}
