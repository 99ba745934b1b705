// random_normals: many of random_normal's numbers at once.
#pragma once

#include <cstdint>
#include <span>

namespace mixtune {

// values[i] = static_cast<float>(deviation * random_normal(key, first + i)), bit for bit, in a fraction of the time.
// Runs on the calling thread.
void random_normals(uint64_t key, uint64_t first, double deviation, std::span<float> values);

}  // namespace mixtune
