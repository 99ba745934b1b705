// model.safetensors.index.json: which file of a sharded checkpoint holds which tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace mixtune {

constexpr const char* kWeightsFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr size_t kMaxIndexBytes = 64u << 20;

using WeightMap = std::map<std::string, std::string, std::less<>>;  // tensor -> file

// The weight_map of an index. Nothing in it is trusted: each file is the plain name of a .safetensors file in the
// index's own folder, never a path. (What a link of that name may lead to is for path_within to say.) Throws UserError.
WeightMap parse_index(std::string_view json, const std::string& where);

// The text of an index. total_size is the number of bytes of all tensors.
std::string format_index(const WeightMap& weight_map, uint64_t total_size);

}  // namespace mixtune
