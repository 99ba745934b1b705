#include "parallel/nccl.h"

#include <fmt/format.h>

#include <cstdlib>

#include "base/error.h"

namespace mixtune {

NcclFunctions::NcclFunctions(const Library& library) {
  library.load(all_gather, "ncclAllGather");
  library.load(all_reduce, "ncclAllReduce");
  library.load(comm_abort, "ncclCommAbort");
  library.load(comm_count, "ncclCommCount");
  library.load(comm_destroy, "ncclCommDestroy");
  library.load(comm_init, "ncclCommInitRankConfig");
  library.load(comm_split, "ncclCommSplit");
  library.load(comm_rank, "ncclCommUserRank");
  library.load(error_string, "ncclGetErrorString");
  library.load(last_error, "ncclGetLastError");
  library.load(unique_id, "ncclGetUniqueId");
  library.load(group_end, "ncclGroupEnd");
  library.load(group_start, "ncclGroupStart");
  library.load(receive, "ncclRecv");
  library.load(reduce_scatter, "ncclReduceScatter");
  library.load(send, "ncclSend");
}

namespace {

// Makes sums keep a fixed order, which NVLink's switches do not. A user who sets the variable has chosen otherwise.
Library open_nccl() {
  setenv("NCCL_NVLS_ENABLE", "0", 0);
  return open_library(CudaLibrary::kNccl);
}

}  // namespace

Nccl::Nccl() : library_(open_nccl()), call_(library_) {}

void Nccl::check(ncclResult_t result, const char* what) const {
  if (result == ncclSuccess || result == ncclInProgress) return;
  throw Error("NCCL",
              fmt::format("{}: {} ({})", what, call_.error_string(result), printable(call_.last_error(nullptr), 400)),
              "run 'mixtune doctor', or start with NCCL_DEBUG=INFO for more");
}

}  // namespace mixtune
