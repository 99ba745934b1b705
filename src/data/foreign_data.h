// Foreign data: what people give in place of a file of JSON records, and the command that makes one of it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "data/byte_stream.h"

namespace mixtune {

struct ForeignData {
  std::string what, mend;  // as an Error has them
};

// The kind of content of a file that begins with `head`, once decompressed; 512 bytes, or a shorter file, suffice. Its
// first bytes decide, and its name where these could be text of any kind. None: it may be JSON.
std::optional<ForeignData> foreign_content(std::string_view path, std::string_view head, Compression compression);

// What a path that is no file means: an address, a name on the hub. None: it is a slip.
std::optional<ForeignData> foreign_path(std::string_view path);

// What to name in place of the folder `path`.
ForeignData foreign_data_folder(const std::string& path);

// Whether `name` looks like one on the hub, "mistralai/Mixtral-8x7B-v0.1", and is no slip in a path of this machine.
bool looks_like_hub_name(std::string_view name);

// `path` as a word of a shell command; "FILE" where that would be dangerous to paste.
std::string shell_word(std::string_view path);

}  // namespace mixtune
