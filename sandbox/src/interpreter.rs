//! The Python interpreter. The only file that knows of pyo3.

#![expect(
    unsafe_code,
    reason = "an isolated start and forking are only to be had through CPython's C interface"
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

/// What runs inside a session.
const KERNEL: &CStr = c_str!(include_str!("../python/kernel.py"));

/// What went wrong with Python, in Python's words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PythonError(String);

impl From<PyErr> for PythonError {
    fn from(error: PyErr) -> Self {
        Self(error.to_string())
    }
}

/// The interpreter of this process, with the kernel loaded. There can be one, on one thread.
pub struct Interpreter {
    kernel: Py<PyModule>,
}

impl Interpreter {
    /// Starts Python as `executable` would, but without regard to the environment, the user's
    /// packages or the folder it is started in, and imports what sessions want to find imported.
    ///
    /// The calling thread stays attached to the interpreter for good.
    pub fn start(executable: &Path) -> Result<Self, PythonError> {
        initialize(executable)?;
        // SAFETY: initializing has attached this thread, and it is never detached.
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
        // SAFETY: the version is a constant string of the library.
        let version = unsafe { CStr::from_ptr(ffi::Py_GetVersion()) };
        let version = version.to_string_lossy();
        version.split(' ').next().unwrap_or_default().to_owned()
    }

    /// To be called before a fork.
    pub fn before_fork(&self) {
        // SAFETY: this thread is attached, and the only one.
        unsafe { ffi::PyOS_BeforeFork() }
    }

    /// To be called after a fork in the process that forked.
    pub fn after_fork_in_parent(&self) {
        // SAFETY: follows `before_fork` on the same thread.
        unsafe { ffi::PyOS_AfterFork_Parent() }
    }

    /// Serves cells on `socket` until its other end closes. Only in a forked process.
    pub fn serve(&self, socket: BorrowedFd) -> Result<(), PythonError> {
        // SAFETY: follows `before_fork` in the only thread of a forked process, which is
        // attached because the forking thread was.
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
    // SAFETY: each struct is initialized by the call made for that before anything is written
    // to it, and neither outlives this function; the string outlives the call that copies it.
    unsafe {
        ffi::PyPreConfig_InitIsolatedConfig(early.as_mut_ptr());
        // An isolated interpreter has the C locale, and with it ASCII for file names.
        (*early.as_mut_ptr()).utf8_mode = 1;
        check(ffi::Py_PreInitialize(early.as_ptr()))?;

        let config = config.as_mut_ptr();
        ffi::PyConfig_InitIsolatedConfig(config);
        (*config).install_signal_handlers = 1;
        (*config).write_bytecode = 0;
        // This is how Python finds pyvenv.cfg, and through it everything else.
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
        // SAFETY: a status that has a message points to a constant string.
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned()
    };
    // SAFETY: the status is a plain value that the interpreter gave.
    match unsafe { ffi::PyStatus_Exception(status) } {
        0 => Ok(()),
        _ => Err(PythonError(format!(
            "Python does not start: {}",
            message(status.err_msg)
        ))),
    }
}
