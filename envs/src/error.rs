//! What can go wrong with an environment.

/// Why an environment refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// No environment has this id.
    #[error("there is no environment '{id}'; did you mean '{nearest}'? known: {known}")]
    Unknown {
        /// What was asked for.
        id: String,
        /// The known id that is spelled most like it.
        nearest: String,
        /// Every known id, separated by commas.
        known: String,
    },
    /// An action is of the wrong kind or length, out of range, or not finite.
    #[error("{env} cannot take the action {got}; give {allowed}")]
    Action {
        /// The environment's id.
        env: String,
        /// What came.
        got: String,
        /// What it takes.
        allowed: String,
    },
    /// A step before the first reset.
    #[error("{env} was stepped before any reset; call reset first")]
    NotReset {
        /// The environment's id.
        env: String,
    },
    /// A step after the episode's end.
    #[error("{env} was stepped after its episode had ended; call reset to start the next one")]
    Ended {
        /// The environment's id.
        env: String,
    },
    /// The caller's memory does not fit the observation.
    #[error("an observation of {env} needs {expected}; the buffer given is {got}")]
    Buffer {
        /// The environment's id.
        env: String,
        /// Element type and count of the observation.
        expected: String,
        /// Element type and count of the buffer.
        got: String,
    },
    /// A state to be set is not one that the environment can be in.
    #[error("{env} cannot be put into the state {got}; give {expected}")]
    State {
        /// The environment's id.
        env: String,
        /// What came.
        got: String,
        /// What a state is.
        expected: String,
    },
    /// A setting of an environment has a value that it cannot have.
    #[error("{env} cannot have the {setting} {got}; give {allowed}")]
    Setting {
        /// The environment's id.
        env: String,
        /// What was set.
        setting: &'static str,
        /// What came.
        got: String,
        /// What it can be.
        allowed: &'static str,
    },
    /// Saved bytes do not decode to a state of this environment.
    #[error(
        "these {len} bytes are not a saved state of {env}: {why}; load what save of the same environment and version gave"
    )]
    Saved {
        /// The environment's id.
        env: String,
        /// How many bytes came.
        len: usize,
        /// What is wrong with them.
        why: String,
    },
    /// A wrapper that does not go around this environment.
    #[error("{wrapper} cannot wrap {env}: {why}")]
    Wrapper {
        /// The wrapper's name.
        wrapper: String,
        /// The environment's id.
        env: String,
        /// What it needs and what it found.
        why: String,
    },
    /// A vector environment without environments.
    #[error("a vector environment needs at least one environment; none was given")]
    NoEnvs,
    /// Environments of different kinds in one vector environment.
    #[error(
        "a vector environment holds one kind: environment 0 is {first} and environment {index} is {other}"
    )]
    Mixed {
        /// Id of environment 0.
        first: String,
        /// Position of the one that differs.
        index: usize,
        /// Its id; it may also differ only in a space or limit.
        other: String,
    },
    /// A batch of actions of the wrong length.
    #[error("{envs} environments of {env} need {expected} action values in a step; {got} were given")]
    Batch {
        /// The environments' id.
        env: String,
        /// How many environments there are.
        envs: usize,
        /// Values expected.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// The code of an environment panicked.
    #[error("{env} panicked: {message}; that is a mistake in its code, so make the environments anew")]
    Panicked {
        /// The environment's id.
        env: String,
        /// The first line of the panic's message.
        message: String,
    },
    /// The system starts no more threads.
    #[error("cannot start the threads to step environments on {threads}: {why}; ask for fewer")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's answer.
        why: String,
    },
    /// An id that is to be registered has an environment already.
    #[error("there is an environment '{id}' already; register yours under another id, such as 'Mine/{id}'")]
    Taken {
        /// The id.
        id: String,
    },
    /// An environment that is to be registered under one id calls itself another.
    #[error(
        "an environment is to be registered as '{id}', but the id in its spec is '{spec}'; make them the same"
    )]
    Named {
        /// The id to register it under.
        id: String,
        /// The id in its spec.
        spec: String,
    },
    /// The environment's feature is not compiled in.
    #[error("{env} is not in this build; build with --features {feature}")]
    NotBuilt {
        /// The environment's id.
        env: String,
        /// The feature that brings it.
        feature: String,
    },
    /// Something is missing on this machine that the environment needs.
    #[error("{env} cannot be made: {why}")]
    Unavailable {
        /// The environment's id.
        env: String,
        /// What is missing, and what brings it.
        why: String,
    },
    /// What Python, or an environment in it, says.
    #[error("{env}: {message}")]
    Python {
        /// The environment's id.
        env: String,
        /// The last line of the traceback and where it happened, or what is to be done.
        message: String,
    },
    /// There is no picture of the environment.
    #[error("{env} has no drawing")]
    NoDrawing {
        /// The environment's id.
        env: String,
    },
    /// An error of one environment of several.
    #[error("environment {index}: {source}")]
    At {
        /// Its position.
        index: usize,
        /// Its error.
        source: Box<EnvError>,
    },
}
