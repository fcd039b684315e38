# Included by CMake right after Horovod's own project() line (CMAKE_PROJECT_horovod_INCLUDE). What it says is put off until Horovod has
# said all it has to say; so Horovod's source is built as it was published, less one file.
function(hvd_xai_adjust)
  if(NOT TARGET tensorflow)
    message(FATAL_ERROR "Horovod's build found no TensorFlow")
  endif()
  # Horovod's XLA ops are written against headers that TensorFlow has not shipped since 2.19. Nothing else needs them.
  get_target_property(sources tensorflow SOURCES)
  list(FILTER sources EXCLUDE REGEX "xla_mpi_ops\\.cc$")
  # The library finds MPI and TensorFlow from where it lies, so that one wheel serves every environment; -s leaves 50 MB of debug info out.
  set_target_properties(tensorflow PROPERTIES
    SOURCES "${sources}"
    BUILD_WITH_INSTALL_RPATH TRUE
    INSTALL_RPATH "${HVD_XAI_RPATH}")
  set_property(TARGET tensorflow APPEND PROPERTY LINK_OPTIONS "-s")
endfunction()
cmake_language(DEFER CALL hvd_xai_adjust)
