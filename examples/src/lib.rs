//! Small programs, each one command.
