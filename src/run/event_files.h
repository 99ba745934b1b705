// The event files of a run, which TensorBoard reads, in a folder of its output_dir. A file is a run's where its name is
// one of an event file and its first event names mixtune as the writer: nothing else in the folder is touched, nor
// anything behind a link.
#pragma once

#include <cstdint>
#include <string>

namespace mixtune {

bool has_event_files(const std::string& folder);

// Throws UserError where `folder` is there, but no event file could be made in it. Changes nothing.
void check_event_folder(const std::string& folder);

// The path of an event file that is to be made; makes the folder. Its name sorts after those of all that are there: in
// this order they are read.
std::string new_event_file(const std::string& folder);

// Removes the run's files, and what killed processes left of such.
void remove_event_files(const std::string& folder);

// Leaves in each file the whole events up to the last one of `step` or an earlier one, byte for byte: the run writes
// the later ones anew. A file with none of these goes. A kill leaves each file as it was, or cut.
void cut_event_files(const std::string& folder, int64_t step);

}  // namespace mixtune
