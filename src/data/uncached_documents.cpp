#include <optional>

#include "base/error.h"
#include "base/temp_folder.h"
#include "data/data_cache.h"
#include "data/indexed_documents.h"
#include "data/indexed_sink.h"
#include "data/load_progress.h"
#include "data/memory_documents.h"

namespace mixtune {

namespace {

constexpr int64_t kInMemory = 1 << 25;  // tokens

// Holds documents in memory until they are too many, then in files.
class SpillingSink : public DocumentSink {
 public:
  explicit SpillingSink(const DataSource& source) : source_(source) {}

  std::shared_ptr<const Documents> finish() {
    DocumentSink& sink = file_ ? static_cast<DocumentSink&>(*file_) : *memory_;
    while (sink.appended().records < appended().records) sink.append({}, {});
    if (!file_) return memory_;
    file_->finish();
    const SequenceFit fit{.max_seq_length = source_.max_seq_length};
    auto documents = std::make_shared<IndexedDocuments>(IndexedReader(prefix(), source_.vocab_size), fit,
                                                        file_->appended(), file_->digest());
    folder_.reset();  // its files stay open
    return documents;
  }

 private:
  std::string prefix() const { return *folder_ / "data"; }
  void begin_record() override {}

  void add(const Added& document) override {
    if (!file_ && memory_->tokens() > kInMemory) spill();
    give(file_ ? static_cast<DocumentSink&>(*file_) : *memory_, appended().records, document);
  }

  // Gives a document to the record of the same number; records before it may have none.
  static void give(DocumentSink& to, int64_t records, const Added& document) {
    const auto& [ids, labels, weights, targets] = document;
    const bool continues = to.appended().records == records;
    while (to.appended().records + 1 < records) to.append({}, {});
    continues ? to.append_piece(ids, labels, weights) : to.append(ids, labels, weights);
  }

  void spill() {
    folder_.emplace("data");
    file_.emplace(prefix(), source_.vocab_size);
    for (int64_t d = 0; d < memory_->size(); ++d) {
      const auto [ids, labels, weights] = read_document(*memory_, d);
      give(*file_, memory_->record(d) + 1, {ids, labels, weights, memory_->targets(d)});
    }
    memory_.reset();
  }

  const DataSource& source_;
  std::shared_ptr<MemoryDocuments> memory_ = std::make_shared<MemoryDocuments>();
  std::optional<TempFolder> folder_;
  std::optional<IndexedSink> file_;
};

}  // namespace

std::shared_ptr<const Documents> uncached_documents(const DataSource& source) try {
  SpillingSink sink(source);
  LoadProgress progress(source.name, [&](const std::string&) {
    if (source.advanced) source.advanced();
  });
  sink.on_progress(std::ref(progress));
  source.load(sink);
  return sink.finish();
} catch (const CannotStore& error) {
  throw Error("", error.what(), "");
}

}  // namespace mixtune
