//! Compiles the constants of `mpi.h` that are macros, with the MPI that rsmpi also finds.

fn main() {
    println!("cargo:rerun-if-changed=src/constants.c");
    println!("cargo:rerun-if-env-changed=MPICC");
    let library = build_probe_mpi::probe()
        .unwrap_or_else(|errors| panic!("no MPI to build against: {errors:?}"));
    let mut build = cc::Build::new();
    build.file("src/constants.c");
    match library.mpicc {
        Some(mpicc) => drop(build.compiler(mpicc)),
        None => drop(build.includes(&library.include_paths)),
    }
    build.compile("laggard_mpi_constants");
}
