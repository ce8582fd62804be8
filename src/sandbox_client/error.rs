//! Errors of the sandbox client.

/// Why code cannot run. The text is for the log; [`SandboxError::message`] is for clients.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No worker is configured, or the embedded one does not start.
    #[error("The code interpreter is not available: {0}")]
    Unavailable(String),
    #[error("The code interpreter is not available: {0}")]
    Unreachable(String),
    #[error("The code interpreter is busy: all its sessions are in use. Please try again later.")]
    Busy,
    #[error("The code interpreter refused: {0}")]
    Refused(String),
    /// The connection ended, or a message violates the protocol.
    #[error("The connection to the code interpreter was lost: {0}")]
    Lost(String),
    #[error("A file for the code interpreter could not be read: {0}")]
    Input(String),
}

impl SandboxError {
    /// The error text for clients, which does not contain addresses of workers.
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
