// Helpers for tests of indexed data sets: write one, and read all of it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "data/indexed_reader.h"
#include "data/indexed_writer.h"
#include "data/test_folder.h"

namespace mixtune {

using Sequence = std::vector<int32_t>;
using DataSet = std::vector<std::vector<Sequence>>;  // documents of sequences

inline const std::string kIndexedFixtures = source_path("tests/fixtures/indexed");
inline constexpr int64_t kVocab = 200000;

inline Sequence ids_of(const IndexedReader& reader, int64_t sequence) {
  Sequence ids(reader.length(sequence));
  reader.read(sequence, 0, ids, {});
  return ids;
}

inline Sequence labels_of(const IndexedReader& reader, int64_t sequence) {
  Sequence ids(reader.length(sequence)), labels(ids.size());
  reader.read(sequence, 0, ids, labels);
  return labels;
}

inline std::vector<float> weights_of(const IndexedReader& reader, int64_t sequence) {
  std::vector<float> weights(reader.length(sequence));
  reader.read_weights(sequence, 0, weights);
  return weights;
}

inline DataSet read_all(const IndexedReader& reader) {
  DataSet all(reader.documents());
  for (int64_t d = 0; d < reader.documents(); ++d)
    for (int64_t s = reader.document_begin(d); s < reader.document_begin(d + 1); ++s) {
      EXPECT_EQ(reader.document_of(s), d);
      all[d].push_back(ids_of(reader, s));
    }
  return all;
}

inline void write_data_set(const std::string& prefix, const DataSet& documents, int64_t vocab_size = kVocab,
                           Existing existing = Existing::kRefused) {
  IndexedWriter writer(prefix, vocab_size, existing);
  for (const auto& sequences : documents) {
    for (const Sequence& ids : sequences) writer.append(ids, ids);
    writer.end_document();
  }
  writer.finish();
}

}  // namespace mixtune
