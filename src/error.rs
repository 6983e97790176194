//! How a command ends badly: by the user's mistake, or by a failure.

/// Why a command did not do what was asked. The binary prints it in one line; the kind decides the exit code.
#[derive(Debug)]
pub enum CommandError {
    /// Something the user can put right: exit code 2. The text says how.
    Usage(String),
    /// Something went wrong: exit code 1.
    Failed(String),
}

impl CommandError {
    /// The process exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            CommandError::Usage(_) => 2,
            CommandError::Failed(_) => 1,
        }
    }
}

impl std::fmt::Display for CommandError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (CommandError::Usage(text) | CommandError::Failed(text)) = self;
        // One line, whatever a library put into its message.
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        f.write_str(lines.next().unwrap_or("unknown error"))?;
        lines.try_for_each(|line| write!(f, "; {line}"))
    }
}

impl std::error::Error for CommandError {}

/// The result of a command.
pub type Result<T, E = CommandError> = std::result::Result<T, E>;

/// The user's mistake, in one line with its remedy.
pub fn usage<T>(text: impl Into<String>) -> Result<T> {
    Err(CommandError::Usage(text.into()))
}

/// Adds what was being done to an I/O error.
pub fn io(doing: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> CommandError {
    move |e| CommandError::Failed(format!("{doing}: {e}"))
}

impl From<rl_envs::EnvError> for CommandError {
    fn from(e: rl_envs::EnvError) -> Self {
        CommandError::Failed(e.to_string())
    }
}

impl From<rl_learn::AgentError> for CommandError {
    fn from(e: rl_learn::AgentError) -> Self {
        match e {
            rl_learn::AgentError::Config(text) => CommandError::Usage(text),
            other => CommandError::Failed(other.to_string()),
        }
    }
}

impl From<rl_learn::device::DeviceError> for CommandError {
    fn from(e: rl_learn::device::DeviceError) -> Self {
        CommandError::Usage(e.to_string())
    }
}

/// The first line of a panic's message: libtorch's failures (no memory on a GPU, say) reach us as panics of its binding, with a C++
/// backtrace in the message, and what a person needs of it is the first line.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("unknown panic");
    // A TchError inside is printed with its line breaks escaped.
    let first = text.split(['\n', '\r']).next().unwrap_or_default().split("\\n").next().unwrap_or_default();
    format!("internal: {first}")
}
