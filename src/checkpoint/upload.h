// upload: values from host memory into a weight.
#pragma once

#include <cstddef>
#include <span>

#include "tensor/ctx.h"

namespace mixtune {

// Sets `to` to the values of `dtype` whose bytes are `host`, as many as `to` has, rounded to nearest where its type is
// narrower. `host` stays as it is until the ctx is waited for. Takes the values' size of the ctx's stack where the
// types differ.
void upload(Ctx& ctx, std::span<const std::byte> host, DType dtype, const Tensor& to);

}  // namespace mixtune
