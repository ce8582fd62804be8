//! Adds a run path to the libpython that the program is linked with. Without it, the loader would
//! use any library of that name on the system.

fn main() {
    pyo3_build_config::add_libpython_rpath_link_args();
}
