//! Redis: to be written.
