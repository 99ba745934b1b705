#include "data/open_documents.h"

#include "base/cache_folder.h"
#include "base/error.h"
#include "base/log.h"
#include "data/data_cache.h"
#include "data/data_files.h"
#include "data/data_key.h"
#include "data/indexed_documents.h"
#include "data/indexed_sink.h"
#include "data/load_documents.h"
#include "data/load_report.h"

namespace mixtune {

namespace {

// The folder of the cache; "": there is none.
std::string folder_of(const Config& config) {
  if (config.data.data_cache == "off") return "";
  if (!config.data.data_cache.empty()) return config.data.data_cache;
  const std::string folder = cache_folder();
  return folder.empty() ? "" : folder + "/data";
}

std::shared_ptr<const Documents> open_in_place(const std::string& prefix, const DataSettings& settings,
                                               int64_t vocab_size) {
  const std::string name = printable(prefix, 200);
  IndexedReader reader(prefix, vocab_size);
  const SequenceFit fit = fit_of_indexed(settings, reader, name);
  LoadCounts counts;
  const auto documents = IndexedDocuments::open(std::move(reader), fit, name, counts);
  report_loaded(name, documents->totals(), counts, settings.max_seq_length);
  return documents;
}

}  // namespace

bool caches_documents(const Config& config) {
  return !folder_of(config).empty();
}

std::shared_ptr<const Documents> open_documents(std::span<const Dataset> datasets, const Config& config,
                                                const TextEncoder& encoder, int64_t vocab_size,
                                                const std::function<void()>& advanced) {
  const std::vector<std::string> files = files_of(datasets);
  MT_CHECK(!files.empty());
  if (files.size() == 1 && datasets[0].max_samples == 0)
    if (const auto prefix = find_indexed(files[0])) return open_in_place(*prefix, config.data, vocab_size);
  const DataSource source{
      .name = list_names(files),
      .load = [&](DocumentSink& sink) { load_documents(datasets, config.data, encoder, vocab_size, sink); },
      .vocab_size = vocab_size,
      .max_seq_length = config.data.max_seq_length,
      .advanced = advanced};
  const std::string folder = folder_of(config);
  if (folder.empty()) return uncached_documents(source);
  const std::string key = data_key(datasets, config, encoder.tokenizer, vocab_size, folder, advanced);
  try {
    return cached_documents(folder, key, source);
  } catch (const CannotStore& error) {
    log_warning("tokenised data is not kept for later runs: {}", error.what());
    return uncached_documents(source);
  }
}

}  // namespace mixtune
