//! The file system of a session.
//!
//! The zygote builds a small root and leaves the host's. Every session shares that root and adds a
//! `/proc` and three writable folders of its own.

#![expect(unsafe_code, reason = "libc has no safe mount_setattr")]

use std::ffi::CString;
use std::fs;
use std::io;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::fcntl::open;
use nix::libc;
use nix::mount::MntFlags;
use nix::mount::MsFlags;
use nix::mount::mount;
use nix::mount::umount2;
use nix::sys::stat::Mode;
use nix::unistd::chdir;
use nix::unistd::pivot_root;

use super::ConfineError;
use super::Context;
use super::limits::Limits;

/// Path of the virtual environment inside the sandbox.
pub const VENV: &str = "/opt/venv";

/// Path of a session's workspace.
pub const DATA: &str = "/mnt/data";

/// Folders that a session may read besides [`VENV`], if they exist.
pub const READABLE: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/alternatives",
    "/etc/fonts",
];

/// Files of `/etc` that programs need and that contain no secrets of the host.
pub const READABLE_FILES: &[&str] = &[
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/mime.types",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/hosts",
];

/// Those of [`READABLE_FILES`] that are copied from the host; [`GENERATED`] has the others.
const COPIED: &[&str] = &[
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/mime.types",
];

/// Device files of a session. `/dev/zero` is a link to `/dev/full`, which reads the same: a mapping
/// of the real `/dev/zero` is memory that no limit counts.
pub const DEVICES: &[&str] = &["/dev/null", "/dev/full", "/dev/random", "/dev/urandom"];

/// Writable folders of a session.
pub const WRITABLE: &[&str] = &[DATA, "/tmp", "/dev/shm"];

/// Where the new root is assembled before `pivot_root`.
const NEW_ROOT: &str = "/tmp";

/// Maximum size of a file copied from `/etc`, in bytes.
const COPY_BYTES: u64 = 4 << 20;

/// Files that are written instead of copied: path and content.
const GENERATED: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0:root:/:/usr/sbin/nologin\nsandbox:x:1000:1000:sandbox:/tmp:/bin/bash\n",
    ),
    ("etc/group", "root:x:0:\nsandbox:x:1000:\n"),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
    ),
    ("etc/hosts", "127.0.0.1 localhost sandbox\n"),
];

/// What the new root takes over from the host, opened before the host's root is hidden.
struct RootSources {
    /// Folders to bind read-only: source and path in the new root.
    folders: Vec<(OwnedFd, PathBuf)>,
    /// Symbolic links to create: path and target.
    links: Vec<(&'static Path, PathBuf)>,
    devices: Vec<(OwnedFd, &'static str)>,
    /// Files to copy: path and content.
    copies: Vec<(&'static str, Vec<u8>)>,
}

/// Replaces the zygote's root by a read-only one that contains only programs, libraries, the
/// virtual environment, and the Python installation `base`.
///
/// The zygote must have a mount namespace, and be the first process of its process namespace.
pub fn enter_own_root(venv: &Path, base: &Path) -> Result<(), ConfineError> {
    mount_on(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)
        .context("making mounts private")?;
    let sources = RootSources::open(venv, base)?;
    let root = Path::new(NEW_ROOT);
    mount_on(
        Some("tmpfs"),
        NEW_ROOT,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=0755,size=16m,nr_inodes=4096"),
    )
    .context("mounting a new root")?;
    populate_root(root, &sources)?;
    populate_devices(root, &sources.devices)?;
    // Fails where the container hides parts of the host's /proc. Sessions then have no /proc.
    let _ = mount_proc(&root.join("proc"));
    mount_on(
        Some("tmpfs"),
        &format!("{NEW_ROOT}/tmp"),
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=0700,size=64m"),
    )
    .context("mounting the zygote's /tmp")?;

    chdir(root).context("entering the new root")?;
    pivot_root(".", ".").context("changing the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("unmounting the old root")?;
    chdir("/").context("entering the new root")?;
    set_attributes(
        Path::new("/"),
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
        false,
    )
    .context("making the root read-only")
}

impl RootSources {
    fn open(venv: &Path, base: &Path) -> Result<Self, ConfineError> {
        let mut folders = Vec::new();
        let mut links = Vec::new();
        for path in READABLE.iter().map(Path::new) {
            match fs::symlink_metadata(path) {
                Ok(metadata) if metadata.is_symlink() => {
                    links.push((path, fs::read_link(path).context("reading a link")?));
                }
                Ok(_) => folders.push((open_source(path)?, path.to_owned())),
                Err(_) => {}
            }
        }
        if base != Path::new("/") && !base.starts_with("/usr") {
            folders.push((open_source(base)?, base.to_owned()));
        }
        folders.push((open_source(venv)?, PathBuf::from(VENV)));
        let devices = DEVICES
            .iter()
            .map(|path| Ok((open_source(Path::new(path))?, *path)))
            .collect::<Result<Vec<_>, ConfineError>>()?;
        let copies = COPIED
            .iter()
            .filter_map(|path| Some((*path, read_bounded(path).ok()?)))
            .collect();
        Ok(Self {
            folders,
            links,
            devices,
            copies,
        })
    }
}

fn populate_root(root: &Path, sources: &RootSources) -> Result<(), ConfineError> {
    for (source, path) in &sources.folders {
        let target = below(root, path);
        fs::create_dir_all(&target).context("creating a folder")?;
        bind(
            source,
            &target,
            libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        )?;
    }
    for (path, target) in &sources.links {
        symlink(target, below(root, path)).context("creating a link")?;
    }
    for folder in ["etc", "proc", "tmp", "dev/shm", "mnt/data", "var"] {
        fs::create_dir_all(root.join(folder)).context("creating a folder")?;
    }
    // It exists already if the virtual environment is below it.
    if !root.join("var/tmp").exists() {
        symlink("/tmp", root.join("var/tmp")).context("creating a link")?;
    }
    for (path, content) in &sources.copies {
        fs::write(below(root, Path::new(path)), content).context("copying a file of /etc")?;
    }
    for (path, content) in GENERATED {
        fs::write(root.join(path), content).context("writing a file of /etc")?;
    }
    Ok(())
}

fn populate_devices(root: &Path, devices: &[(OwnedFd, &str)]) -> Result<(), ConfineError> {
    for (source, path) in devices {
        let target = below(root, Path::new(path));
        fs::write(&target, "").context("creating a mount point of a device")?;
        // Read-only protects the times and permissions of the device file; the device itself can
        // still be written to.
        let attributes =
            libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
        bind(source, &target, attributes)?;
    }
    for (name, target) in [
        ("zero", "full"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, root.join("dev").join(name)).context("creating a link")?;
    }
    Ok(())
}

/// Mounts a session's `/proc` and its writable folders, owned by `user` and `group` in the ids of
/// the calling process. Returns a descriptor of the workspace, and whether there is a `/proc`.
///
/// The session must have a mount namespace, and be the first process of its process namespace.
pub fn mount_own(limits: &Limits, user: u32, group: u32) -> Result<(OwnedFd, bool), ConfineError> {
    let has_process_list = mount_proc(Path::new("/proc")).is_ok();
    if !has_process_list {
        mount_on(
            Some("tmpfs"),
            "/proc",
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY,
            Some("mode=0555,size=4k"),
        )
        .context("hiding /proc")?;
    }
    let folders = [
        (DATA, limits.data_bytes, limits.data_inodes),
        ("/tmp", limits.tmp_bytes, limits.data_inodes),
        ("/dev/shm", limits.shm_bytes, limits.data_inodes),
    ];
    for (path, bytes, inodes) in folders {
        let options = format!("mode=0700,uid={user},gid={group},size={bytes},nr_inodes={inodes}");
        mount_on(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            Some(&options),
        )
        .context(&format!("mounting {path}"))?;
    }
    Ok((open_workspace()?, has_process_list))
}

/// Opens the workspace of this process.
pub fn open_workspace() -> Result<OwnedFd, ConfineError> {
    open(
        DATA,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .context("opening /mnt/data, which has to be an empty writable folder")
}

/// Mounts the `/proc` of this process's namespace, without the files about the host.
fn mount_proc(target: &Path) -> Result<(), Errno> {
    mount(
        Some("proc"),
        target,
        Some("proc"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("subset=pid"),
    )
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn read_bounded(path: &str) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path)?
        .take(COPY_BYTES)
        .read_to_end(&mut content)?;
    Ok(content)
}

fn open_source(path: &Path) -> Result<OwnedFd, ConfineError> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .context(&format!("opening {}", path.display()))
}

/// Bind-mounts `source` at `target`. The source is a descriptor because the new root may hide its
/// path.
fn bind(source: &OwnedFd, target: &Path, attributes: u64) -> Result<(), ConfineError> {
    let from = format!("/proc/self/fd/{}", source.as_raw_fd());
    mount(
        Some(from.as_str()),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .and_then(|()| set_attributes(target, attributes, true))
    .context(&format!("mounting {}", target.display()))
}

fn mount_on(
    source: Option<&str>,
    target: &str,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), Errno> {
    mount(source, target, kind, flags, options)
}

/// Adds mount attributes to `target`, and with `recursive` to all mounts below it.
fn set_attributes(target: &Path, attributes: u64, recursive: bool) -> Result<(), Errno> {
    let path = CString::new(target.as_os_str().as_encoded_bytes()).map_err(|_| Errno::EINVAL)?;
    let attributes = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string and the attributes a struct of the given size; both outlive the
    // call.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}
