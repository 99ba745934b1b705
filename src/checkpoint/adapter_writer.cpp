#include "checkpoint/adapter_writer.h"

#include <cmath>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/output_file.h"
#include "base/staged.h"
#include "checkpoint/convert.h"

namespace mixtune {

namespace {

std::vector<TensorEntry> entries_of(const NewAdapter& adapter) {
  std::vector<TensorEntry> entries;
  const auto add = [&](const std::string& module, AdapterFactor factor, const Shape& shape) {
    const std::string name = adapter_tensor_name(module, factor, adapter.naming);
    entries.push_back({name, adapter.dtype, is_embedding_factor(name) ? Shape{shape[1], shape[0]} : shape});
  };
  for (const auto& [name, in, out] : adapter.modules) {
    add(name, AdapterFactor::kA, {adapter.r, in});
    add(name, AdapterFactor::kB, {out, adapter.r});
  }
  return entries;
}

std::string config_text(const NewAdapter& adapter) {
  NewAdapterConfig config{
      .base = adapter.base,
      .r = adapter.r,
      .alpha = adapter.rslora ? adapter.alpha * std::sqrt(static_cast<double>(adapter.r)) : adapter.alpha,
      .target_modules = {}};
  std::set<std::string> targets;
  for (const NewAdapter::Module& module : adapter.modules) targets.insert(target_module(module.name, adapter.naming));
  config.target_modules.assign(targets.begin(), targets.end());
  return format_adapter_config(config);
}

}  // namespace

AdapterWriter::AdapterWriter(const std::string& folder, const NewAdapter& adapter)
    : folder_(folder), adapter_(adapter), writer_(folder + "/" + kAdapterWeightsFile, entries_of(adapter)) {}

void AdapterWriter::write(size_t module, std::span<const float> a, std::span<const float> b) {
  const auto r = static_cast<size_t>(adapter_.r);
  const auto& [name, in, out] = adapter_.modules[module];
  MT_CHECK(a.size() == r * static_cast<size_t>(in) && b.size() == r * static_cast<size_t>(out));
  write_factor(2 * module, {adapter_.r, in}, a);
  write_factor(2 * module + 1, {out, adapter_.r}, b);
}

void AdapterWriter::write_factor(size_t entry, const Shape& shape, std::span<const float> values) {
  const std::string& module = adapter_.modules[entry / 2].name;
  check_finite_to_save(host_tensor(values.data(), {static_cast<int64_t>(values.size())}), module);
  std::vector<std::byte> bytes(values.size() * dtype_size(adapter_.dtype));
  if (!narrow(values, adapter_.dtype, bytes))
    throw Error(module, "holds a value too large for the type that is saved: nothing is saved",
                "save the adapter in fp32", ExitCode::kWentBad);
  const AdapterFactor factor = entry % 2 == 0 ? AdapterFactor::kA : AdapterFactor::kB;
  if (is_embedding_factor(adapter_tensor_name(module, factor, adapter_.naming)))
    bytes = transposed(bytes, dtype_size(adapter_.dtype), shape);
  writer_.write(entry, 0, bytes);
}

StoredFiles AdapterWriter::finish() {
  const std::string config = config_text(adapter_);
  write_file(folder_ + "/" + kAdapterConfigFile, config);
  return {{kAdapterWeightsFile, writer_.finish()}, {kAdapterConfigFile, stored_file(config)}};
}

void write_adapter_folder(const std::string& out, const NewAdapter& adapter,
                          const std::function<AdapterFactors(size_t module)>& factors) {
  StagedFolder folder(out);
  AdapterWriter writer(folder.path(), adapter);
  for (size_t i = 0; i < adapter.modules.size(); ++i) {
    const AdapterFactors pair = factors(i);
    writer.write(i, pair.a, pair.b);
  }
  writer.finish();
  folder.commit();
}

}  // namespace mixtune
