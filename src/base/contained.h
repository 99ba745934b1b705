// Files of a folder that came from somebody else: a link there must not make one of the user's own files a part of it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mixtune {

// Whether FOLDER/NAME is a link to a file that lies neither in `folder` nor among the blobs of a hub cache
// (".../models--ORGANISATION--NAME/blobs/HASH"), where the links of downloaded folders lead. `folder` itself may be
// reached through links. False where there is no such file.
bool leads_out(const std::string& folder, const std::string& name);

// The path FOLDER/NAME. Throws UserError, which ends in `mend`, where it leads out.
std::string path_within(const std::string& folder, const std::string& name,
                        std::string_view mend = "put the file itself there, by a copy or a hard link (ln)");

// The text of FOLDER/config.json. Throws UserError where it leads out, is no regular file or larger than 1 MiB.
std::string read_config_json(const std::string& folder);

// Names of the regular files in `folder`, and of links to such, sorted. Throws UserError where it cannot be listed.
std::vector<std::string> regular_files(const std::string& folder);

}  // namespace mixtune
