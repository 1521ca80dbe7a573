//! Has cargo embed the dashboard anew when it was built anew.

fn main() {
    // Where it was never built there is nothing to embed; a folder that does not exist would be looked for at each build.
    let _ = std::fs::create_dir_all("ui/dist");
    println!("cargo:rerun-if-changed=ui/dist");
    println!("cargo:rerun-if-changed=build.rs");
}
