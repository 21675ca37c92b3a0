import Foundation

/// This program's own file, to start it again with other arguments.
enum OwnExecutable {
    static var path: String {
        #if os(Linux)
        var buffer = [CChar](repeating: 0, count: 4096)
        let n = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        let path = n > 0 ? String(decoding: buffer[..<n].map { UInt8(bitPattern: $0) }, as: UTF8.self) : ""
        // Replaced or removed meanwhile: the file that runs is still there under this name.
        return FileManager.default.isExecutableFile(atPath: path) ? path : "/proc/self/exe"
        #else
        return Bundle.main.executablePath ?? CommandLine.arguments[0]
        #endif
    }
}
