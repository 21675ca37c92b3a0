/// Numbers, sizes, times and bytes as people read them. Every function gives a text of few, predictable columns.
enum Format {
    /// 48213 → `48,213`.
    static func count(_ value: Int64) -> String {
        let digits = Array(String(value.magnitude).utf8)
        var result: [UInt8] = value < 0 ? [UInt8(ascii: "-")] : []
        for (index, digit) in digits.enumerated() {
            if index > 0, (digits.count - index) % 3 == 0 { result.append(UInt8(ascii: ",")) }
            result.append(digit)
        }
        return String(decoding: result, as: UTF8.self)
    }

    static func count(_ value: Int) -> String { count(Int64(value)) }
    static func count(_ value: UInt64) -> String { count(Int64(clamping: value)) }

    /// At most four columns: 412, 1.9k, 18k, 2.1M.
    static func short(_ value: Int) -> String {
        switch value {
        case ..<1_000: String(value)
        case ..<10_000: tenths(value, 1_000) + "k"
        case ..<1_000_000: String(value / 1_000) + "k"
        case ..<10_000_000: tenths(value, 1_000_000) + "M"
        default: String(value / 1_000_000) + "M"
        }
    }

    private static func tenths(_ value: Int, _ unit: Int) -> String {
        "\(value / unit).\(value % unit * 10 / unit)"
    }

    /// 22 → `22 B`, 2150 → `2.1 kB`.
    static func bytes(_ value: Int) -> String {
        switch value {
        case ..<1_000: "\(value) B"
        case ..<1_000_000: tenths(value, 1_000) + " kB"
        case ..<1_000_000_000: tenths(value, 1_000_000) + " MB"
        default: tenths(value, 1_000_000_000) + " GB"
        }
    }

    /// At most five columns, for tables: 22B, 2.1k, 640k, 12.4M, 2.0G.
    static func shortBytes(_ value: Int64) -> String {
        let value = Int(value)
        return switch value {
        case ..<1_000: "\(value)B"
        case ..<10_000: tenths(value, 1_000) + "k"
        case ..<1_000_000: "\(value / 1_000)k"
        case ..<100_000_000: tenths(value, 1_000_000) + "M"
        case ..<1_000_000_000: "\(value / 1_000_000)M"
        default: tenths(value, 1_000_000_000) + "G"
        }
    }

    /// Microseconds as milliseconds with the precision that matters: 0.42, 1.9, 41.0, 1083.
    static func milliseconds(_ microseconds: Int) -> String {
        switch microseconds {
        case ..<1_000:
            "\((microseconds + 5) / 1_000)." + pad((microseconds + 5) / 10 % 100, 2)
        case ..<100_000: tenths((microseconds + 50) / 100, 10)
        default: String(microseconds / 1_000 + (microseconds % 1_000 >= 500 ? 1 : 0))
        }
    }

    /// A time span: 340ms, 1.08s, 41s, 2m05s, 2h11m, 3d4h.
    static func span(milliseconds: Int64) -> String {
        let ms = max(0, milliseconds)
        if ms < 1_000 { return "\(ms)ms" }
        if ms < 10_000 { return "\(ms / 1_000)." + pad(Int(ms % 1_000 / 10), 2) + "s" }
        return age(milliseconds: ms)
    }

    /// How long ago, whole units: 0s, 41s, 2m05s, 2h11m, 3d4h.
    static func age(milliseconds: Int64) -> String {
        let seconds = Int(max(0, milliseconds) / 1_000)
        if seconds < 60 { return "\(seconds)s" }
        if seconds < 3_600 { return "\(seconds / 60)m" + pad(seconds % 60, 2) + "s" }
        if seconds < 86_400 { return "\(seconds / 3_600)h" + pad(seconds % 3_600 / 60, 2) + "m" }
        return "\(seconds / 86_400)d\(seconds % 86_400 / 3_600)h"
    }

    /// `18:42:07` in the person's time zone.
    static func clock(_ moment: Moment, zone: Int) -> String {
        let seconds = daySeconds(moment, zone)
        return pad(seconds / 3_600, 2) + ":" + pad(seconds % 3_600 / 60, 2) + ":" + pad(seconds % 60, 2)
    }

    /// `42:07.114`: minutes, seconds and milliseconds.
    static func stamp(_ moment: Moment, zone: Int) -> String {
        let seconds = daySeconds(moment, zone)
        return pad(seconds % 3_600 / 60, 2) + ":" + pad(seconds % 60, 2) + "." + pad(Int(floorMod(moment.milliseconds, 1_000)), 3)
    }

    /// `18:42:07.114`.
    static func longStamp(_ moment: Moment, zone: Int) -> String { clock(moment, zone: zone) + "." + pad(Int(floorMod(moment.milliseconds, 1_000)), 3) }

    /// `2025-11-23T18:42:07.114Z`, for files.
    static func iso(_ moment: Moment) -> String {
        // Days since 1970 to a civil date, by eras of 400 years that start in March.
        let days = (moment.milliseconds - floorMod(moment.milliseconds, 86_400_000)) / 86_400_000 + 719_468
        let era = (days - floorMod(days, 146_097)) / 146_097
        let dayOfEra = floorMod(days, 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let month = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * month + 2) / 5 + 1
        let calendarMonth = month < 10 ? month + 3 : month - 9
        let year = yearOfEra + era * 400 + (calendarMonth <= 2 ? 1 : 0)
        return "\(pad(Int(year), 4))-\(pad(Int(calendarMonth), 2))-\(pad(Int(day), 2))T\(longStamp(moment, zone: 0))Z"
    }

    private static func daySeconds(_ moment: Moment, _ zone: Int) -> Int {
        let seconds = (moment.milliseconds - floorMod(moment.milliseconds, 1_000)) / 1_000 + Int64(zone)
        return Int(floorMod(seconds, 86_400))
    }

    private static func floorMod(_ a: Int64, _ b: Int64) -> Int64 { ((a % b) + b) % b }

    static func pad(_ value: Int, _ width: Int) -> String {
        let digits = String(value)
        return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
    }

    static func hex(_ value: UInt64) -> String { String(value, radix: 16) }

    /// Bytes as one line of text: valid UTF-8 as it is, everything else and control characters as `\xNN`, newline as `↵`-less `\n`.
    /// Reads at most `limit` bytes, so that a megabyte costs no more than a line.
    static func text(_ bytes: some Collection<UInt8>, limit: Int = 400) -> String {
        let head = bytes.prefix(limit)
        if head.allSatisfy({ $0 >= 0x20 && $0 < 0x7f }) { return String(decoding: head, as: UTF8.self) }
        var result = ""
        var buffer = Array(head)
        if bytes.count > limit { while let last = buffer.last, last & 0xc0 == 0x80 { buffer.removeLast() } ; if let last = buffer.last, last >= 0xc0 { buffer.removeLast() } }
        var index = 0
        while index < buffer.count {
            let byte = buffer[index]
            let length = byte < 0x80 ? 1 : byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 0
            if length > 1, index + length <= buffer.count, let piece = String(validating: buffer[index..<index + length], as: UTF8.self) {
                let scalar = piece.unicodeScalars.first!
                if scalar.value >= 0xa0, !isInvisible(scalar) { result.unicodeScalars.append(scalar) } else { result += "\\u{\(String(scalar.value, radix: 16))}" }
                index += length
                continue
            }
            switch byte {
            case 0x0a: result += "\\n"
            case 0x0d: result += "\\r"
            case 0x09: result += "\\t"
            case 0x20..<0x7f: result.unicodeScalars.append(Unicode.Scalar(byte))
            default: result += "\\x" + hexByte(byte)
            }
            index += 1
        }
        return result
    }

    static func text(_ key: KeyBytes) -> String { text(key.bytes) }

    /// Text on one row: line ends and tabs become blanks.
    static func oneLine(_ text: String) -> String {
        text.utf8.contains { $0 < 0x20 } ? String(text.map { $0.isNewline || $0 == "\t" ? " " : $0 }) : text
    }

    /// Characters that would reorder or hide text around them.
    private static func isInvisible(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x200b, 0x200e, 0x200f, 0x2028...0x202e, 0x2060...0x206f, 0xfeff, 0xfff9...0xfffb: true
        default: false
        }
    }

    static func hexByte(_ byte: UInt8) -> String {
        let digits: [Character] = Array("0123456789abcdef")
        return String([digits[Int(byte >> 4)], digits[Int(byte & 15)]])
    }

    static func isText(_ bytes: [UInt8]) -> Bool {
        guard String(validating: bytes, as: UTF8.self) != nil else { return false }
        return !bytes.contains { $0 < 0x20 && $0 != 0x0a && $0 != 0x0d && $0 != 0x09 || $0 == 0x7f }
    }

    static func plural(_ count: Int64, _ word: String) -> String { "\(Format.count(count)) \(word)\(count == 1 ? "" : "s")" }

    /// `text` cut to `width` cells, `…` in place of what is gone.
    static func fitted(_ text: String, _ width: Int) -> String {
        if CharacterWidth.of(text) <= width { return text }
        guard width > 0 else { return "" }
        var used = 0
        var result = ""
        for character in text {
            let w = CharacterWidth.of(character)
            if used + w > width - 1 { break }
            result.append(character)
            used += w
        }
        return result + "…"
    }

    /// `text` in lines of at most `width` cells, broken at blanks.
    static func wrapped(_ text: String, _ width: Int) -> [String] {
        guard width > 0 else { return [] }
        var lines: [String] = []
        for paragraph in text.split(separator: "\n", omittingEmptySubsequences: false) {
            var line = ""
            for word in paragraph.split(separator: " ") {
                if !line.isEmpty, line.cellWidth + 1 + String(word).cellWidth > width {
                    lines.append(line)
                    line = ""
                }
                line += (line.isEmpty ? "" : " ") + word
                // A word longer than the line is cut into pieces.
                while line.cellWidth > width {
                    var used = 0
                    let head = line.prefix { character in
                        used += CharacterWidth.of(character)
                        return used <= width
                    }
                    if head.isEmpty { break }
                    lines.append(String(head))
                    line = String(line.dropFirst(head.count))
                }
            }
            lines.append(line)
        }
        return lines
    }

    /// `text` cut at its start: `…web/cfg/flags`.
    static func fittedTail(_ text: String, _ width: Int) -> String {
        if CharacterWidth.of(text) <= width { return text }
        guard width > 0 else { return "" }
        var used = 0
        var tail: [Character] = []
        for character in text.reversed() {
            let w = CharacterWidth.of(character)
            if used + w > width - 1 { break }
            tail.append(character)
            used += w
        }
        return "…" + String(tail.reversed())
    }
}

extension String {
    /// Cells this text takes.
    var cellWidth: Int { CharacterWidth.of(self) }

    func padded(_ width: Int) -> String { self + String(repeating: " ", count: max(0, width - cellWidth)) }
    func leftPadded(_ width: Int) -> String { String(repeating: " ", count: max(0, width - cellWidth)) + self }
}
