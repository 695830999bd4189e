//! `wasi:filesystem`: the folders of `files`, and a refusal for every other path.
//!
//! A guest learns its folders before it opens anything, and its library looks for the one that a
//! path is in. Beside the folders that are granted stands one at the root that is empty and
//! unreachable from anywhere else, so that whatever path a guest tries arrives here and can be told.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use wasmtime::Result;
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType};
use wasmtime_wasi::filesystem::{WasiFilesystemCtx, WasiFilesystemCtxView, WasiFilesystemView as _};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    Descriptor, DescriptorFlags, ErrorCode, HostDescriptor, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::{FsPerms, ResourceTable, WasiCtx, WasiCtxView, WasiView};

use super::WASI;
use super::granted::Granted;
use super::refusals::{Kind, Refusals};

/// The folders of one execution.
pub struct Folders {
    granted: Arc<Granted>,
    refusals: Arc<Refusals>,
    /// What WASI keeps; the folders are opened when the guest asks for them.
    context: WasiFilesystemCtx,
    /// Handles of the folder at the root that has nothing, until they are dropped: their numbers are
    /// given to others then.
    nowhere: BTreeSet<u32>,
}

/// What the interface needs of one execution.
pub struct FilesView<'a> {
    /// Its folders.
    pub folders: &'a mut Folders,
    /// Its resources.
    pub table: &'a mut ResourceTable,
}

impl Folders {
    /// Those that are granted.
    #[must_use]
    pub fn new(granted: Arc<Granted>, refusals: Arc<Refusals>) -> Self {
        Self { granted, refusals, context: WasiFilesystemCtx::default(), nowhere: BTreeSet::new() }
    }
}

/// Puts the host's own answers in the place of what opens folders and paths.
///
/// # Errors
/// Where the linker takes none.
pub fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    get: fn(&mut T) -> FilesView<'_>,
) -> Result<()> {
    linker
        .instance(&format!("wasi:filesystem/preopens@{WASI}"))?
        .func_wrap_async("get-directories", move |mut store, (): ()| {
            Box::new(async move { Ok((get(store.data_mut()).directories().await?,)) })
        })?;
    let mut types = linker.instance(&format!("wasi:filesystem/types@{WASI}"))?;
    types.func_wrap_async(
        "[method]descriptor.open-at",
        move |mut store,
              (fd, follow, path, how, flags): (
            Resource<Descriptor>,
            PathFlags,
            String,
            OpenFlags,
            DescriptorFlags,
        )| {
            Box::new(async move { get(store.data_mut()).open_at(fd, follow, path, how, flags).await })
        },
    )?;
    macro_rules! path {
        ($name:literal, $method:ident, writes = $writes:literal $(, $before:ident: $type:ty)?) => {
            types.func_wrap_async(
                $name,
                move |mut store, (fd, $($before,)? path): (Resource<Descriptor>, $($type,)? String)| {
                    Box::new(async move {
                        let mut view = get(store.data_mut());
                        let (folder, shown) = (again(&fd), path.clone());
                        let done = view.wasi().$method(fd, $($before,)? path).await;
                        view.settle(&folder, &shown, $writes, done).await
                    })
                },
            )?;
        };
    }
    path!("[method]descriptor.stat-at", stat_at, writes = false, follow: PathFlags);
    path!("[method]descriptor.metadata-hash-at", metadata_hash_at, writes = false, follow: PathFlags);
    path!("[method]descriptor.readlink-at", readlink_at, writes = false);
    path!("[method]descriptor.create-directory-at", create_directory_at, writes = true);
    path!("[method]descriptor.remove-directory-at", remove_directory_at, writes = true);
    path!("[method]descriptor.unlink-file-at", unlink_file_at, writes = true);
    path!("[method]descriptor.symlink-at", symlink_at, writes = true, old: String);
    types.func_wrap_async(
        "[method]descriptor.set-times-at",
        move |mut store,
              (fd, follow, path, accessed, modified): (
            Resource<Descriptor>,
            PathFlags,
            String,
            NewTimestamp,
            NewTimestamp,
        )| {
            Box::new(async move {
                let mut view = get(store.data_mut());
                let (folder, shown) = (again(&fd), path.clone());
                let done = view.wasi().set_times_at(fd, follow, path, accessed, modified).await;
                view.settle(&folder, &shown, true, done).await
            })
        },
    )?;
    // The number of one that was dropped is given to the next.
    types.resource_async("descriptor", ResourceType::host::<Descriptor>(), move |mut store, rep| {
        Box::new(async move {
            let mut view = get(store.data_mut());
            view.folders.nowhere.remove(&rep);
            HostDescriptor::drop(&mut view.wasi(), Resource::new_own(rep))
        })
    })?;
    between_two(&mut types, get)
}

/// What takes a path in each of two folders.
fn between_two<T: Send + 'static>(
    types: &mut LinkerInstance<'_, T>,
    get: fn(&mut T) -> FilesView<'_>,
) -> Result<()> {
    types.func_wrap_async(
        "[method]descriptor.rename-at",
        move |mut store,
              (fd, path, to, new): (Resource<Descriptor>, String, Resource<Descriptor>, String)| {
            Box::new(async move {
                let mut view = get(store.data_mut());
                let (folder, shown) = view.refusing((&fd, &path), (&to, &new)).await;
                let done = view.wasi().rename_at(fd, path, to, new).await;
                view.settle(&folder, &shown, true, done).await
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.link-at",
        move |mut store,
              (fd, follow, path, to, new): (
            Resource<Descriptor>,
            PathFlags,
            String,
            Resource<Descriptor>,
            String,
        )| {
            Box::new(async move {
                let mut view = get(store.data_mut());
                let (folder, shown) = view.refusing((&fd, &path), (&to, &new)).await;
                let done = view.wasi().link_at(fd, follow, path, to, new).await;
                view.settle(&folder, &shown, true, done).await
            })
        },
    )
}

impl FilesView<'_> {
    fn wasi(&mut self) -> WasiFilesystemCtxView<'_> {
        WasiFilesystemCtxView { ctx: &mut self.folders.context, table: &mut *self.table }
    }

    /// The folders that are granted, and the one that has nothing.
    async fn directories(&mut self) -> Result<Vec<(Resource<Descriptor>, String)>> {
        let mut directories = Vec::new();
        let granted = self.folders.granted.clone();
        for folder in &granted.files {
            let perms = if folder.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            let (granted, opening) = (granted.clone(), folder.clone());
            // A folder may be on a disk that takes its time.
            let open = move || {
                granted.recheck(&opening)?;
                Preopened::open(&opening.path, &opening.seen_as, perms)
            };
            let opened = tokio::task::spawn_blocking(open).await?;
            match opened {
                Ok(mut context) => directories.extend(self.preopened(&mut context)?),
                Err(error) => {
                    let shown = folder.path.display().to_string();
                    let message = || format!("the folder {shown} of `files` cannot be opened: {error}");
                    self.folders.refusals.record(Kind::Files, &shown, message).await;
                }
            }
        }
        let has_root = granted.files.iter().any(|folder| folder.seen_as == "/");
        if !has_root && let Some(nowhere) = NOWHERE.as_ref() {
            let opened = self.preopened(&mut nowhere.clone())?;
            self.folders.nowhere.extend(opened.iter().map(|(fd, _)| fd.rep()));
            directories.extend(opened);
        }
        Ok(directories)
    }

    fn preopened(&mut self, context: &mut WasiFilesystemCtx) -> Result<Vec<(Resource<Descriptor>, String)>> {
        WasiFilesystemCtxView { ctx: context, table: &mut *self.table }.get_directories()
    }

    async fn open_at(
        &mut self,
        fd: Resource<Descriptor>,
        follow: PathFlags,
        path: String,
        how: OpenFlags,
        flags: DescriptorFlags,
    ) -> Result<(Result<Resource<Descriptor>, ErrorCode>,)> {
        let writes = how.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE)
            || flags.intersects(DescriptorFlags::WRITE | DescriptorFlags::MUTATE_DIRECTORY);
        let (folder, shown) = (again(&fd), path.clone());
        // Its own entries are a path as well: an empty folder would look as if it were granted.
        let done = if self.is_nowhere(&fd) {
            Err(ErrorCode::Access.into())
        } else {
            self.wasi().open_at(fd, follow, path, how, flags).await
        };
        self.settle(&folder, &shown, writes, done).await
    }

    fn is_nowhere(&self, fd: &Resource<Descriptor>) -> bool {
        self.folders.nowhere.contains(&fd.rep())
    }

    /// Of two folders and the path in each, the one to tell of where both have to be changed: one that
    /// is not granted before one that is only to be read.
    async fn refusing(
        &mut self,
        from: (&Resource<Descriptor>, &str),
        to: (&Resource<Descriptor>, &str),
    ) -> (Resource<Descriptor>, String) {
        let to_is_to_tell = match (self.is_nowhere(from.0), self.is_nowhere(to.0)) {
            (_, true) => true,
            (true, false) => false,
            (false, false) => self.is_read_only(to.0).await,
        };
        let (folder, path) = if to_is_to_tell { to } else { from };
        (again(folder), path.to_owned())
    }

    async fn is_read_only(&mut self, folder: &Resource<Descriptor>) -> bool {
        let flags = self.wasi().get_flags(again(folder)).await;
        flags.is_ok_and(|flags| !flags.contains(DescriptorFlags::MUTATE_DIRECTORY))
    }

    /// Tells of a path that was refused, and why: it is in no folder that is granted, in one that
    /// is only to be read, or it leads out of one.
    async fn settle<R>(
        &mut self,
        folder: &Resource<Descriptor>,
        path: &str,
        writes: bool,
        done: FsResult<R>,
    ) -> Result<(Result<R, ErrorCode>,)> {
        let error = match done {
            Ok(done) => return Ok((Ok(done),)),
            Err(error) => error.downcast()?,
        };
        let granted = self.folders.granted.clone();
        let plugin = &granted.plugin;
        if self.is_nowhere(folder) {
            self.folders.refusals.note_path(path);
            return Ok((Err(ErrorCode::Access),));
        }
        if !matches!(error, ErrorCode::NotPermitted | ErrorCode::ReadOnly | ErrorCode::Access) {
            return Ok((Err(error),));
        }
        let read_only = self.is_read_only(folder).await;
        let message = || {
            if writes && read_only {
                format!(
                    "`{path}` was not written, because its folder is granted read-only; to grant it, add `access = \
                     \"read-write\"` to its [[plugins.{plugin}.files]]"
                )
            } else {
                format!(
                    "`{path}` was refused: the system does not permit it, or it leads out of the folder that is \
                     granted, by `..` or a symbolic link; to grant what it leads to, add a [[plugins.{plugin}.files]]"
                )
            }
        };
        self.folders.refusals.record(Kind::Files, path, message).await;
        Ok((Err(error),))
    }
}

/// The same handle once more: calls take theirs.
fn again(fd: &Resource<Descriptor>) -> Resource<Descriptor> {
    Resource::new_borrow(fd.rep())
}

/// A folder with nothing in it, that nothing can be put into: it was removed when it was opened.
static NOWHERE: LazyLock<Option<WasiFilesystemCtx>> = LazyLock::new(|| {
    let opened = tempfile::tempdir().map_err(wasmtime::Error::from).and_then(|folder| {
        let opened = Preopened::open(folder.path(), "/", FsPerms::ReadOnly)?;
        folder.close()?;
        Ok(opened)
    });
    opened.inspect_err(|error| tracing::warn!("paths that are refused will not be logged: {error:#}")).ok()
});

/// Only a whole context can open a folder.
struct Preopened {
    context: WasiCtx,
    table: ResourceTable,
}

impl Preopened {
    fn open(path: &std::path::Path, seen_as: &str, perms: FsPerms) -> Result<WasiFilesystemCtx> {
        let context = WasiCtx::builder().preopened_dir(path, seen_as, perms)?.build();
        let mut opened = Self { context, table: ResourceTable::new() };
        Ok(opened.filesystem().ctx.clone())
    }
}

impl WasiView for Preopened {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.context, table: &mut self.table }
    }
}
