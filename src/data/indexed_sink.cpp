#include "data/indexed_sink.h"

namespace mixtune {

IndexedSink::IndexedSink(const std::string& prefix, int64_t vocab_size) {
  storing([&] { writer_ = std::make_unique<IndexedWriter>(prefix, vocab_size, Existing::kRefused); });
}

void IndexedSink::begin_record() {
  if (begun_) storing([&] { writer_->end_document(); });
  begun_ = true;
}

void IndexedSink::add(const Added& document) {
  storing([&] { writer_->append(document.ids, document.labels, document.weights); });
}

void IndexedSink::finish() {
  storing([&] {
    if (begun_) writer_->end_document();
    writer_->finish();
  });
}

}  // namespace mixtune
