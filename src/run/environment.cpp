#include "run/environment.h"

#include <fmt/chrono.h>

#include <ctime>
#include <thread>

#include "base/json_value.h"
#include "base/staged.h"

namespace mixtune {

std::string print_environment(const Environment& environment) {
  nlohmann::ordered_json object = {{"mixtune", MIXTUNE_VERSION},
                                   {"device", environment.device},
                                   {"parameters", environment.parameters},
                                   {"host", host_name()},
                                   {"cpu_threads", std::thread::hardware_concurrency()},
                                   {"began", fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(std::time(nullptr)))}};
  if (!environment.layout.empty()) object["layout"] = environment.layout;
  if (!environment.peak.empty()) object[kPeakOfMfu] = environment.peak;
  if (environment.first_step > 1) object["went on from step"] = environment.first_step;
  return object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace mixtune
