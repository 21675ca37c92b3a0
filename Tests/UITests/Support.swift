import Foundation
import Testing
@testable import UI

/// SplitMix64: the same numbers on every machine.
struct Seeded: RandomNumberGenerator {
    var state: UInt64
    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
        return z ^ z >> 31
    }
}

extension CellGrid {
    /// One letter a cell for its style, with a legend.
    var styleMap: String {
        let letters = Array("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-*/=%&!?<>:;@#$^~_|")
        var known: [Style] = []
        var lines: [String] = []
        for row in 0..<size.rows {
            var line = ""
            for column in 0..<size.columns {
                let style = self[column, row].style
                if style == Style() { line.append("."); continue }
                let index = known.firstIndex(of: style) ?? { known.append(style); return known.count - 1 }()
                line.append(letters[index % letters.count])
            }
            while line.last == "." { line.removeLast() }
            lines.append(line)
        }
        lines.append("")
        for (index, style) in known.enumerated() {
            lines.append("\(letters[index % letters.count]) \(style.foreground.name) on \(style.background.name)\(style.attributes.contains(.bold) ? " bold" : "")")
        }
        return lines.joined(separator: "\n")
    }
}

extension Color {
    var name: String {
        switch kind {
        case .terminalDefault: "default"
        case .slot(let slot): slot.name
        case .gradient(let gradient, let step): "\(gradient.name)(\(step))"
        case .rgb(let rgb): "\(rgb)"
        }
    }
}

/// Compares with the recording in `Goldens/NAME.txt`. `UI_RECORD=1 swift test` records again: look at the difference before it is kept.
func expectGolden(_ text: String, _ name: String, sourceLocation: SourceLocation = #_sourceLocation) {
    let path = (#filePath as NSString).deletingLastPathComponent + "/Goldens/\(name).txt"
    let text = text + "\n"
    if ProcessInfo.processInfo.environment["UI_RECORD"] == "1" {
        try? text.write(toFile: path, atomically: true, encoding: .utf8)
        return
    }
    guard let expected = try? String(contentsOfFile: path, encoding: .utf8) else {
        Issue.record("no recording \(name): run with UI_RECORD=1", sourceLocation: sourceLocation)
        return
    }
    if expected != text {
        let old = expected.split(separator: "\n", omittingEmptySubsequences: false), new = text.split(separator: "\n", omittingEmptySubsequences: false)
        let first = zip(old, new).enumerated().first { $0.element.0 != $0.element.1 }
        Issue.record("\(name) differs, first in line \((first?.offset ?? min(old.count, new.count)) + 1):\n- \(first?.element.0 ?? "")\n+ \(first?.element.1 ?? "")\n\n\(text)", sourceLocation: sourceLocation)
    }
}
