// jinja_normal_form: makes Jinja templates comparable: two with the same normal form render the same.
#pragma once

#include <string>
#include <string_view>

namespace mixtune {

// `source` as transformers reads it (trim_blocks, lstrip_blocks), without what does not change its output: white space
// and the kind of quotes in tags, '-' at their ends (once it has stripped), comments, escapes in strings, `.key` for
// `['key']`, '~' for '+', whether texts are joined by these or written in one tag or several, the name of the variable
// that goes through the messages, and the `generation` tags that mark answers. Never throws: text that is not Jinja has
// a form of its own.
std::string jinja_normal_form(std::string_view source);

}  // namespace mixtune
