// nlohmann's JSON values. Code that reads or makes values includes this in place of the library's header: the values'
// own functions are compiled once, in json_value.cpp.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace nlohmann {

extern template class basic_json<>;
extern template class basic_json<ordered_map>;

extern template json json::parse<std::string>(std::string&&, json::parser_callback_t, bool, bool);
extern template json json::parse<std::string&>(std::string&, json::parser_callback_t, bool, bool);
extern template json json::parse<const std::string&>(const std::string&, json::parser_callback_t, bool, bool);

}  // namespace nlohmann
