# What `cmake --install` puts where: libquire.so with its SONAME, the public headers, the quire command, a CMake package
# (quire::quire) and a pkg-config file. Also what the library exports. tests/install_test.sh holds all of it.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

target_link_options(quire PRIVATE "LINKER:--version-script=${PROJECT_SOURCE_DIR}/cmake/quire.map")
set_property(TARGET quire APPEND PROPERTY LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/quire.map)

target_compile_features(quire INTERFACE cxx_std_20)  # of the C++ header; a program in C is not held to it
install(TARGETS quire EXPORT quireTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/quire DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")

if(TARGET quire_cli)
  # The command finds its library beside it, wherever the tree is put.
  file(RELATIVE_PATH quire_bin_to_lib ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})
  set_target_properties(quire_cli PROPERTIES INSTALL_RPATH "$ORIGIN/${quire_bin_to_lib}")
  install(TARGETS quire_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

set(quire_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/quire)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/quireConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/quireConfig.cmake INSTALL_DESTINATION ${quire_package_dir})
# Until 1.0 a minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/quireConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/quireConfig.cmake ${PROJECT_BINARY_DIR}/quireConfigVersion.cmake
        DESTINATION ${quire_package_dir})
install(EXPORT quireTargets NAMESPACE quire:: DESTINATION ${quire_package_dir})

# Relative to the .pc file itself, so that `cmake --install --prefix` and a moved tree both work.
file(RELATIVE_PATH quire_pc_to_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" quire_pc_to_prefix "${quire_pc_to_prefix}")
set(QUIRE_PC_PREFIX "\${pcfiledir}/${quire_pc_to_prefix}")
foreach(dir INCLUDEDIR LIBDIR)
  if(IS_ABSOLUTE "${CMAKE_INSTALL_${dir}}")
    set(QUIRE_PC_${dir} "${CMAKE_INSTALL_${dir}}")
  else()
    set(QUIRE_PC_${dir} "\${prefix}/${CMAKE_INSTALL_${dir}}")
  endif()
endforeach()
configure_file(${PROJECT_SOURCE_DIR}/cmake/quire.pc.in ${PROJECT_BINARY_DIR}/quire.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/quire.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
