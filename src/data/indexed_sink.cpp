#include "data/indexed_sink.h"

namespace mixtune {

IndexedSink::IndexedSink(const std::string& prefix, int64_t vocab_size) {
  storing([&] { writer_ = std::make_unique<IndexedWriter>(prefix, vocab_size, Existing::kRefused); });
}

void IndexedSink::begin_record() {
  if (begun_) storing([&] { writer_->end_document(); });
  begun_ = true;
}

void IndexedSink::add(std::span<const int32_t> ids, std::span<const int32_t> labels, int64_t /*targets*/) {
  storing([&] { writer_->append(ids, labels); });
}

void IndexedSink::finish() {
  storing([&] {
    if (begun_) writer_->end_document();
    writer_->finish();
  });
}

}  // namespace mixtune
