// data_key: names an entry of the cache of tokenised data by everything that its tokens depend on.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "config/config.h"
#include "data/tokenizer.h"

namespace mixtune {

// The hash of a file's bytes. It is remembered in `folder`, where that can be written, while the file's path, size,
// inode and times stay the same: runs need not read it again. Throws as InputFile does.
std::string remembered_hash(const std::string& path, const std::string& folder, const std::function<void()>& advanced);

// 32 digits. They depend on the contents of the files of `datasets` in their order and each entry's settings, the
// tokeniser's folder (null: there is none), all keys of `config` that have a say in tokens, the vocabulary, and the
// program.
std::string data_key(std::span<const Dataset> datasets, const Config& config, const Tokenizer* tokenizer,
                     int64_t vocab_size, const std::string& folder, const std::function<void()>& advanced);

}  // namespace mixtune
