//! What a session sees of the file system.
//!
//! The zygote makes a small root of its own and leaves the host's behind; what it sees is what
//! every session sees. A session adds nothing but a process list and three writable folders of
//! its own.

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

use super::Failure;
use super::Trying;
use super::limits::Limits;

/// Where the virtual environment is inside.
pub const VENV: &str = "/opt/venv";

/// A session's workspace.
pub const DATA: &str = "/mnt/data";

/// What a session may read besides [`VENV`], as far as it exists. Folders.
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

/// Files of `/etc` that programs need and that tell nothing of the host's secrets.
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

/// Of the files above, those that are copied from the host; the others are written anew.
const COPIED: &[&str] = &[
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/mime.types",
];

/// Devices that every program may expect. `/dev/zero` is a link to `/dev/full`, which reads the
/// same: mapped, the real one is memory that no limit counts.
pub const DEVICES: &[&str] = &["/dev/null", "/dev/full", "/dev/random", "/dev/urandom"];

/// Folders of a session that are its own and writable.
pub const WRITABLE: &[&str] = &[DATA, "/tmp", "/dev/shm"];

/// Where the new root is put together before it becomes the root.
const BUILDING_SITE: &str = "/tmp";

/// Largest file copied from `/etc`.
const COPY_BYTES: u64 = 4 << 20;

const WRITTEN: &[(&str, &str)] = &[
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

/// Replaces the zygote's root: read-only, with nothing of the host but programs and libraries,
/// the virtual environment, and the installation `base` that it belongs to.
///
/// The zygote must have a mount namespace, and be the first process of its process namespace.
pub fn enter_own_root(venv: &Path, base: &Path) -> Result<(), Failure> {
    mount_on(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)
        .trying("keeping mounts to oneself")?;

    let mut sources = Vec::new();
    let mut links = Vec::new();
    for path in READABLE.iter().map(Path::new) {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => {
                links.push((path, fs::read_link(path).trying("reading a link")?));
            }
            Ok(_) => sources.push((open_source(path)?, path.to_owned())),
            Err(_) => {}
        }
    }
    if base != Path::new("/") && !base.starts_with("/usr") {
        sources.push((open_source(base)?, base.to_owned()));
    }
    sources.push((open_source(venv)?, PathBuf::from(VENV)));
    let devices = DEVICES
        .iter()
        .map(|path| Ok((open_source(Path::new(path))?, *path)))
        .collect::<Result<Vec<_>, Failure>>()?;
    let copies: Vec<(&str, Vec<u8>)> = COPIED
        .iter()
        .filter_map(|path| Some((*path, read_some(path).ok()?)))
        .collect();

    let site = Path::new(BUILDING_SITE);
    mount_on(
        Some("tmpfs"),
        BUILDING_SITE,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=0755,size=16m,nr_inodes=4096"),
    )
    .trying("mounting a new root")?;

    for (source, path) in &sources {
        let target = below(site, path);
        fs::create_dir_all(&target).trying("making a folder")?;
        bind(
            source,
            &target,
            libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        )?;
    }
    for (path, target) in links {
        symlink(target, below(site, path)).trying("making a link")?;
    }
    for folder in ["etc", "proc", "tmp", "dev/shm", "mnt/data", "var"] {
        fs::create_dir_all(site.join(folder)).trying("making a folder")?;
    }
    // Unless the environment is below it.
    if !site.join("var/tmp").exists() {
        symlink("/tmp", site.join("var/tmp")).trying("making a link")?;
    }
    for (path, content) in copies {
        fs::write(below(site, Path::new(path)), content).trying("copying a file of /etc")?;
    }
    for (path, content) in WRITTEN {
        fs::write(site.join(path), content).trying("writing a file of /etc")?;
    }
    for (source, path) in &devices {
        let target = below(site, Path::new(path));
        fs::write(&target, "").trying("making a device's place")?;
        // Read-only means the device's times and permissions; it may be written to all the same.
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
        symlink(target, site.join("dev").join(name)).trying("making a link")?;
    }
    // Where the host hides parts of its own, no process list may be mounted: then there is none.
    let _ = mount_processes(&site.join("proc"));
    mount_on(
        Some("tmpfs"),
        &format!("{BUILDING_SITE}/tmp"),
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=0700,size=64m"),
    )
    .trying("mounting the zygote's /tmp")?;

    chdir(site).trying("entering the new root")?;
    pivot_root(".", ".").trying("changing the root")?;
    umount2(".", MntFlags::MNT_DETACH).trying("leaving the old root")?;
    chdir("/").trying("entering the new root")?;
    set_attributes(
        Path::new("/"),
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
        false,
    )
    .trying("making the root read-only")
}

/// Gives a session its process list and its writable folders, owned by `user` and `group`, as the
/// mounting process counts. Returns a descriptor of its workspace, and whether it has a process
/// list.
///
/// The session must have a mount namespace, and be the first process of its process namespace.
pub fn mount_own(limits: &Limits, user: u32, group: u32) -> Result<(OwnedFd, bool), Failure> {
    let processes = mount_processes(Path::new("/proc")).is_ok();
    if !processes {
        mount_on(
            Some("tmpfs"),
            "/proc",
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY,
            Some("mode=0555,size=4k"),
        )
        .trying("hiding /proc")?;
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
        .trying(&format!("mounting {path}"))?;
    }
    Ok((open_workspace()?, processes))
}

/// A descriptor of the workspace of this process.
pub fn open_workspace() -> Result<OwnedFd, Failure> {
    open(
        DATA,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .trying("opening /mnt/data, which has to be an empty writable folder")
}

/// Mounts the process list of this process's namespace, without what tells of the host.
fn mount_processes(target: &Path) -> Result<(), Errno> {
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

fn read_some(path: &str) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path)?
        .take(COPY_BYTES)
        .read_to_end(&mut content)?;
    Ok(content)
}

fn open_source(path: &Path) -> Result<OwnedFd, Failure> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .trying(&format!("opening {}", path.display()))
}

/// Mounts what `source` holds at `target` too. By descriptor, because the new root's place may
/// hide the path.
fn bind(source: &OwnedFd, target: &Path, attributes: u64) -> Result<(), Failure> {
    let from = format!("/proc/self/fd/{}", source.as_raw_fd());
    mount(
        Some(from.as_str()),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .and_then(|()| set_attributes(target, attributes, true))
    .trying(&format!("mounting {}", target.display()))
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

/// Adds mount attributes, with `recursive` also to what is mounted below.
fn set_attributes(target: &Path, attributes: u64, recursive: bool) -> Result<(), Errno> {
    let path = CString::new(target.as_os_str().as_encoded_bytes()).map_err(|_| Errno::EINVAL)?;
    let attributes = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string and the attributes a struct of the size told, both alive
    // until the call returns.
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
