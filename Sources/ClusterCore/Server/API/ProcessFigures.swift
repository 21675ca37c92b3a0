#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// What the operating system knows of this process. Zero where it does not say.
struct ProcessFigures {
    var cpuSeconds = 0.0
    var residentBytes: UInt64 = 0
    var virtualBytes: UInt64 = 0
    var openDescriptors: UInt64 = 0
    var maxDescriptors: UInt64 = 0
    var startSeconds = 0.0

    static func read() -> ProcessFigures {
        var figures = ProcessFigures()
        var limit = rlimit()
        #if canImport(Glibc)
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        #else
        let resource = RLIMIT_NOFILE
        #endif
        if getrlimit(resource, &limit) == 0 { figures.maxDescriptors = UInt64(limit.rlim_cur) }
        #if os(Linux)
        let ticks = Double(max(1, sysconf(Int32(_SC_CLK_TCK))))
        // Fields are counted behind the command, which may hold anything, in parentheses. (proc(5))
        if let text = contents("/proc/self/stat"), let end = text.lastIndex(of: ")") {
            let fields = text[text.index(after: end)...].split(separator: " ")
            if fields.count > 21 {
                figures.cpuSeconds = ((Double(fields[11]) ?? 0) + (Double(fields[12]) ?? 0)) / ticks
                figures.virtualBytes = UInt64(fields[20]) ?? 0
                figures.residentBytes = (UInt64(fields[21]) ?? 0) * UInt64(max(1, sysconf(Int32(_SC_PAGESIZE))))
                let boot = contents("/proc/stat")?.split(separator: "\n").first { $0.hasPrefix("btime ") }
                if let boot, let started = Double(fields[19]) { figures.startSeconds = (Double(boot.dropFirst(6)) ?? 0) + started / ticks }
            }
        }
        if let directory = opendir("/proc/self/fd") {
            while let entry = readdir(directory) {
                if entry.pointee.d_name.0 != 0x2e { figures.openDescriptors += 1 }
            }
            closedir(directory)
        }
        #endif
        return figures
    }

    private static func contents(_ path: String) -> String? {
        let file = open(path, O_RDONLY)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4_096)
        while true {
            let count = posixRead(file, &chunk, chunk.count)
            if count <= 0 { break }
            bytes.append(contentsOf: chunk[0..<count])
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// The system call, whose name the type's own function hides.
private func posixRead(_ file: Int32, _ buffer: UnsafeMutableRawPointer, _ count: Int) -> Int { read(file, buffer, count) }
