#include "checkpoint/join_files.h"

#include <algorithm>
#include <map>
#include <vector>

#include "checkpoint/safetensors_writer.h"

namespace mixtune {

namespace {

void copy(const SafetensorsFile& from, const StoredTensor& tensor, size_t entry, SafetensorsWriter& writer) {
  constexpr uint64_t kAtOnce = 8 << 20;
  for (uint64_t done = 0; done < tensor.bytes(); done += kAtOnce) {
    const std::string bytes = from.file().read(tensor.begin + done, std::min(kAtOnce, tensor.bytes() - done));
    writer.write(entry, done, std::as_bytes(std::span(bytes)));
  }
}

}  // namespace

StoredFile join_files(const std::string& folder, std::span<const std::string> parts, const std::string& name) {
  struct Found {
    size_t file;
    const StoredTensor* tensor;
  };
  std::vector<SafetensorsFile> files;
  files.reserve(parts.size());
  std::map<std::string, Found> places;
  for (const std::string& part : parts) {
    files.emplace_back(folder + "/" + part);
    for (const auto& [tensor_name, tensor] : files.back().tensors())
      MT_CHECK(places.emplace(tensor_name, Found{files.size() - 1, &tensor}).second);
  }
  std::vector<TensorEntry> entries;
  for (const auto& [tensor_name, place] : places)
    entries.push_back({tensor_name, place.tensor->dtype.value(), place.tensor->shape});
  SafetensorsWriter writer(folder + "/" + name, entries);
  size_t entry = 0;
  for (const auto& [tensor_name, place] : places) copy(files[place.file], *place.tensor, entry++, writer);
  return writer.finish();
}

}  // namespace mixtune
