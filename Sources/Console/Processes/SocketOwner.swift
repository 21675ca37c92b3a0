import Foundation

/// Whose connections are whose, as Linux tells it.
package enum SocketOwner {
    /// Which of the processes has the TCP connection of 127.0.0.1 between these ports, at its first end; nil: none, or the system does not say.
    package static func find<ID: Hashable & Comparable>(_ from: Int, _ to: Int, among processes: [ID: pid_t]) -> ID? {
        // Several connections may come from one port, to different ones; and those that are over still stand in the table for a minute.
        let ends = ["0100007F:" + hex(from), "0100007F:" + hex(to)]
        guard let table = ProcFile.text("/proc/net/tcp") else { return nil }
        let connection = table.split(separator: "\n").lazy.map { $0.split(separator: " ").map(String.init) }.first { fields in
            fields.count > 9 && fields[1] == ends[0] && fields[2] == ends[1] && fields[9] != "0"
        }
        guard let inode = connection?[9] else { return nil }
        let name = "socket:[\(inode)]"
        for (node, process) in processes.sorted(by: { $0.key < $1.key }) {
            let directory = "/proc/\(process)/fd"
            for descriptor in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
            where (try? FileManager.default.destinationOfSymbolicLink(atPath: directory + "/" + descriptor)) == name {
                return node
            }
        }
        return nil
    }

    private static func hex(_ port: Int) -> String {
        let digits = String(port, radix: 16, uppercase: true)
        return String(repeating: "0", count: max(0, 4 - digits.count)) + digits
    }
}

/// Files that the system makes up when they are read, and that therefore have no size.
enum ProcFile {
    static func text(_ path: String) -> String? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var bytes: [UInt8] = [], buffer = [UInt8](repeating: 0, count: 16 << 10)
        while case let n = read(file, &buffer, buffer.count), n > 0 { bytes += buffer[..<n] }
        return String(decoding: bytes, as: UTF8.self)
    }
}
