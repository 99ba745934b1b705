// How OpenMP's threads wait for each other.
#pragma once

namespace mixtune {

// Makes waiting threads sleep instead of spin, unless the user has chosen (OMP_WAIT_POLICY, GOMP_SPINCOUNT). A thread
// that spins takes the core from the one it waits for where anything else runs on the machine: a step is then four
// times slower (docs/performance.md). The runtime reads its settings before main, so the program starts itself once
// more.
void let_threads_sleep(char** argv);

}  // namespace mixtune
