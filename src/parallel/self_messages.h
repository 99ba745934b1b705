// The messages that a rank sends to itself in Communicator::exchange.
#pragma once

#include <span>

#include "parallel/communicator.h"

namespace mixtune {

// Whether an exchange has this message for `rank`: it leaves empty ones out.
inline bool is_for(const Communicator::Message& message, int rank) {
  return message.peer == rank && message.data.elements() > 0;
}

// Copies the messages in their order.
void copy_self_messages(Ctx& ctx, int rank, std::span<const Communicator::Message> sends,
                        std::span<const Communicator::Message> receives);

}  // namespace mixtune
