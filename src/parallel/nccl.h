// NCCL, opened when it is first needed, as far as mixtune uses it.
#pragma once

#include <nccl.h>

#include <string>

#include "base/library.h"

namespace mixtune {

struct NcclFunctions {
  explicit NcclFunctions(const Library& library);

  decltype(&ncclAllGather) all_gather;
  decltype(&ncclAllReduce) all_reduce;
  decltype(&ncclCommAbort) comm_abort;
  decltype(&ncclCommCount) comm_count;
  decltype(&ncclCommDestroy) comm_destroy;
  decltype(&ncclCommInitRankConfig) comm_init;
  decltype(&ncclCommSplit) comm_split;
  decltype(&ncclCommUserRank) comm_rank;
  decltype(&ncclGetErrorString) error_string;
  decltype(&ncclGetLastError) last_error;
  decltype(&ncclGetUniqueId) unique_id;
  decltype(&ncclGroupEnd) group_end;
  decltype(&ncclGroupStart) group_start;
  decltype(&ncclRecv) receive;
  decltype(&ncclReduceScatter) reduce_scatter;
  decltype(&ncclSend) send;
};

class Nccl {
 public:
  Nccl();

  const NcclFunctions& call() const { return call_; }
  // Throws Error (where: `what`) for a call that failed.
  void check(ncclResult_t result, const char* what) const;

 private:
  Library library_;
  NcclFunctions call_;
};

}  // namespace mixtune
