//! Errors of the sandbox client.

/// Why code cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// There is no worker.
    #[error("The code interpreter is not available: {0}")]
    Unavailable(String),
    /// There are workers, and none can be reached.
    #[error("The code interpreter is not available: {0}")]
    Unreachable(String),
    /// All sessions of all workers are at work.
    #[error("The code interpreter is busy: all its sessions are in use. Please try again later.")]
    Busy,
    /// A worker would not do something.
    #[error("The code interpreter refused: {0}")]
    Refused(String),
    /// The connection ended, or what came is not understood.
    #[error("The connection to the code interpreter was lost: {0}")]
    Lost(String),
    /// A file for the session could not be read.
    #[error("A file for the code interpreter could not be read: {0}")]
    Input(String),
}

impl SandboxError {
    /// For clients: like the error itself, which is for the log, but without where workers are.
    pub fn message(&self) -> String {
        match self {
            Self::Unreachable(_) => {
                "The code interpreter is not available: no worker can be reached.".to_owned()
            }
            Self::Lost(_) => "The connection to the code interpreter was lost.".to_owned(),
            Self::Input(_) => "A file for the code interpreter could not be read.".to_owned(),
            Self::Unavailable(_) | Self::Busy | Self::Refused(_) => self.to_string(),
        }
    }
}
