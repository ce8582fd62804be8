//! Lets the binary find the very libpython it was linked with: without a run path the loader
//! takes whichever library of that name the system has.

fn main() {
    pyo3_build_config::add_libpython_rpath_link_args();
}
