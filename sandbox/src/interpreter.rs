//! The embedded Python interpreter. No other file uses pyo3.

#![expect(
    unsafe_code,
    reason = "only CPython's C interface offers isolated initialization and fork hooks"
)]

use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::path::Path;

use pyo3::ffi;
use pyo3::ffi::c_str;
use pyo3::prelude::*;
use pyo3::types::PyModule;

/// Source of the module that runs cells.
const KERNEL: &CStr = c_str!(include_str!("../python/kernel.py"));

/// An error of the interpreter, with Python's own message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PythonError(String);

impl From<PyErr> for PythonError {
    fn from(error: PyErr) -> Self {
        Self(error.to_string())
    }
}

/// The interpreter of this process, with the kernel module loaded. A process has at most one, which
/// belongs to one thread.
pub struct Interpreter {
    kernel: Py<PyModule>,
}

impl Interpreter {
    /// Starts Python as `executable` would, but ignores the environment variables, the user's
    /// packages and the current folder; then imports the packages of the sessions.
    ///
    /// The calling thread stays attached to the interpreter.
    pub fn start(executable: &Path) -> Result<Self, PythonError> {
        initialize(executable)?;
        // SAFETY: initialization has attached this thread, and nothing detaches it.
        let python = unsafe { Python::assume_attached() };
        let kernel = PyModule::from_code(
            python,
            KERNEL,
            c_str!("assistd_kernel.py"),
            c_str!("assistd_kernel"),
        )?;
        kernel.call_method0("warm")?;
        Ok(Self {
            kernel: kernel.unbind(),
        })
    }

    /// The running version, such as `3.11.2`.
    pub fn version() -> String {
        // SAFETY: the function returns a constant string.
        let version = unsafe { CStr::from_ptr(ffi::Py_GetVersion()) };
        let version = version.to_string_lossy();
        version.split(' ').next().unwrap_or_default().to_owned()
    }

    /// Must be called before a fork.
    pub fn before_fork(&self) {
        // SAFETY: this thread is attached, and the only one.
        unsafe { ffi::PyOS_BeforeFork() }
    }

    /// Must be called in the parent after a fork.
    pub fn after_fork_in_parent(&self) {
        // SAFETY: `before_fork` was called on the same thread.
        unsafe { ffi::PyOS_AfterFork_Parent() }
    }

    /// Serves cells on `socket` until the peer closes it. Must be called in a forked child.
    pub fn serve(&self, socket: BorrowedFd) -> Result<(), PythonError> {
        // SAFETY: this is the only thread of a forked child, `before_fork` was called, and the
        // thread is attached because the forking thread was.
        let python = unsafe {
            ffi::PyOS_AfterFork_Child();
            Python::assume_attached()
        };
        self.kernel
            .bind(python)
            .call_method1("serve", (socket.as_raw_fd(),))?;
        Ok(())
    }
}

fn initialize(executable: &Path) -> Result<(), PythonError> {
    let executable = CString::new(executable.as_os_str().as_encoded_bytes())
        .map_err(|_| PythonError("the path of Python's executable has a zero byte".into()))?;
    let mut early = MaybeUninit::<ffi::PyPreConfig>::uninit();
    let mut config = MaybeUninit::<ffi::PyConfig>::uninit();
    // SAFETY: each struct is initialized by its init function before it is written to, and neither
    // outlives this function; the string outlives the call that copies it.
    unsafe {
        ffi::PyPreConfig_InitIsolatedConfig(early.as_mut_ptr());
        // An isolated interpreter uses the C locale, whose file names would be ASCII.
        (*early.as_mut_ptr()).utf8_mode = 1;
        check(ffi::Py_PreInitialize(early.as_ptr()))?;

        let config = config.as_mut_ptr();
        ffi::PyConfig_InitIsolatedConfig(config);
        (*config).install_signal_handlers = 1;
        (*config).write_bytecode = 0;
        // Python finds pyvenv.cfg, and with it all packages, beside this executable.
        let set = ffi::PyConfig_SetBytesString(
            config,
            &raw mut (*config).executable,
            executable.as_ptr(),
        );
        let done = check(set).and_then(|()| check(ffi::Py_InitializeFromConfig(config)));
        ffi::PyConfig_Clear(config);
        done
    }
}

fn check(status: ffi::PyStatus) -> Result<(), PythonError> {
    let message = |text: *const c_char| {
        if text.is_null() {
            return "no reason given".into();
        }
        // SAFETY: the message of a status is a constant string.
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned()
    };
    // SAFETY: the status is a plain value returned by the interpreter.
    match unsafe { ffi::PyStatus_Exception(status) } {
        0 => Ok(()),
        _ => Err(PythonError(format!(
            "Python does not start: {}",
            message(status.err_msg)
        ))),
    }
}
