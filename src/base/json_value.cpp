#include "base/json_value.h"

namespace nlohmann {

template class basic_json<>;
template class basic_json<ordered_map>;

template json json::parse<std::string>(std::string&&, json::parser_callback_t, bool, bool);
template json json::parse<std::string&>(std::string&, json::parser_callback_t, bool, bool);
template json json::parse<const std::string&>(const std::string&, json::parser_callback_t, bool, bool);

}  // namespace nlohmann
