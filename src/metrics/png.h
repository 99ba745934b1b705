// PNG files, of RGB pixels.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mixtune {

// pixels: 3 bytes each, row by row.
std::string png_of(int64_t width, int64_t height, std::string_view pixels);

}  // namespace mixtune
