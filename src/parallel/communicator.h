// Communicator: what the ranks of a group do together. NCCL on GPUs, Gloo for CPU processes, and a group of one.
//
// Every rank of the group calls the same operations in the same order. Results are ready in the order of ctx's work, as
// an op's are; those of an operation in the lane (tensor/lane.h) once the ctx has waited for it. `what` names for
// messages and metrics what is moved ("tokens to experts"); it outlives the communicator. Throws Error where a rank is
// lost or does not come within the timeout: it names the operation and, where it is known, the rank.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "tensor/lane.h"

namespace mixtune {

class Communicator {
 public:
  Communicator(int rank, int size) : rank_(rank), size_(size) {}
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }

  // Contiguous memory that goes to the rank `peer`, or comes from it.
  struct Message {
    int peer;
    Tensor data;
  };
  // A send meets the receive of the same size at its peer; several between the same two ranks meet in their order. One
  // to itself is a copy; an empty one is left out on both sides. Sends and receives do not overlap.
  virtual void exchange(Ctx& ctx, const char* what, std::span<const Message> sends,
                        std::span<const Message> receives) = 0;

  // x = the sum of all ranks' x, in every rank the same bits; fp32, fp64, bf16, int32 or int64. A sum of bf16 is added
  // up in fp32 and rounded once (Gloo), or rounded with each rank that is added (NCCL; with two ranks that is once).
  virtual void all_reduce(Ctx& ctx, const char* what, const Tensor& x) = 0;

  // x is `size` pieces of the same number of elements. Piece `rank` becomes the sum of all ranks' pieces of that
  // number; the other pieces are then undefined.
  virtual void reduce_scatter(Ctx& ctx, const char* what, const Tensor& x) = 0;

  // x is `size` pieces of the same number of elements; piece r becomes rank r's piece r.
  virtual void all_gather(Ctx& ctx, const char* what, const Tensor& x) = 0;

  // Makes the ctx's later work wait for what this group put in the lane until `mark`.
  virtual void wait(Ctx& ctx, const char* /*what*/, LaneMark mark) { wait_for_lane(ctx, mark); }

  // The group of the ranks that give the same color, in the order of their ranks here.
  virtual std::unique_ptr<Communicator> split(int color) = 0;

 private:
  int rank_, size_;
};

// A group of one.
std::unique_ptr<Communicator> make_single_communicator();

}  // namespace mixtune
