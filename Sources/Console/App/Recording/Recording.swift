import Foundation
import UI

/// A recording's file. Opening it reads the header and finds the lines; what stands in them is decoded by the piece.
struct Recording: Sendable {
    let path: String
    let header: RecordingHeader
    /// Where each line after the header begins and ends.
    private(set) var lines: [Range<Int>]
    private let data: Data

    /// - Throws: `CommandFailure`, one line: not there, not a recording, of a later version, damaged.
    init(path: String) throws {
        let full = Paths.expanded(path)
        let data: Data
        do {
            data = try Data(contentsOf: URL(fileURLWithPath: full), options: .alwaysMapped)
        } catch {
            let reason = access(full, R_OK) == 0 ? "cannot be read" : String(cString: strerror(errno)).lowercased()
            throw CommandFailure(description: "\(path): \(reason)")
        }
        try self.init(data, path: full)
    }

    /// - Parameter path: where `data` are from, for messages.
    init(_ data: Data, path: String) throws {
        self.path = path
        self.data = data
        let foreign = CommandFailure(description: "\(path): not a recording of quarterdeck")
        guard data.first == UInt8(ascii: "{") else { throw foreign }
        var lines: [Range<Int>] = []
        let count = data.count
        data.withUnsafeBytes { (bytes: UnsafeRawBufferPointer) in
            var start = 0
            while start < count {
                let found = memchr(bytes.baseAddress! + start, 10, count - start)
                let end = found.map { $0 - UnsafeMutableRawPointer(mutating: bytes.baseAddress!) } ?? count
                // The last line may be cut: the recorder was killed.
                if found == nil, bytes[end - 1] != UInt8(ascii: "}") { break }
                lines.append(start..<end)
                start = end + 1
            }
        }
        guard let first = lines.first else { throw foreign }
        guard let probe = try? JSONDecoder().decode(Probe.self, from: data[first]), probe.format == RecordingHeader.formatName else { throw foreign }
        guard probe.version <= RecordingHeader.newestVersion else {
            throw CommandFailure(description: "\(path): recorded by a later version of quarterdeck (format \(probe.version))")
        }
        do {
            var header = try JSONDecoder().decode(RecordingHeader.self, from: data[first])
            header.start = header.start.bounded
            header.cluster = header.cluster.bounded
            self.header = header
        } catch {
            throw CommandFailure(description: "\(path): damaged in line 1")
        }
        self.lines = Array(lines.dropFirst())
        // Every line is looked at now, so that damage is told before a console opens; decoding them all would take too long.
        for (index, line) in self.lines.enumerated() {
            let isSound = line.count > 8 && data[line.lowerBound] == UInt8(ascii: "{") && data[line.upperBound - 1] == UInt8(ascii: "}")
            guard isSound else { throw CommandFailure(description: "\(path): damaged in line \(index + 2)") }
        }
        // A last line that ends with a brace by chance may be cut all the same.
        if let last = self.lines.last, last.upperBound == count, (try? decode(self.lines.count - 1, JSONDecoder())) == nil {
            self.lines.removeLast()
        }
    }

    private struct Probe: Decodable {
        var format: String
        var version: Int
    }

    /// - Throws: `CommandFailure` that names the line.
    func decode(_ index: Int, _ decoder: JSONDecoder) throws -> RecordedEvent {
        do {
            return try decoder.decode(RecordedEvent.self, from: data[lines[index]])
        } catch {
            throw CommandFailure(description: "\(path): damaged in line \(index + 2)")
        }
    }

    /// When the last line was recorded, read without the rest.
    var end: Moment {
        struct Time: Decodable { var t: Int64 }
        for line in lines.reversed() {
            if let time = try? JSONDecoder().decode(Time.self, from: data[line]) { return max(Moment(milliseconds: time.t).bounded, header.start) }
        }
        return header.start
    }
}
