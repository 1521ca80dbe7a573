//! Has cargo embed the dashboard anew when it was built anew.

use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Debug builds read it where it lies.
    if env::var("PROFILE").as_deref() == Ok("release") {
        // Where it was never built there is nothing to embed; a folder that is not there would be looked for each time.
        let _ = fs::create_dir_all("ui/dist");
        println!("cargo:rerun-if-changed=ui/dist");
    }
}
